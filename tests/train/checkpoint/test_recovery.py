"""A run goes on from the newest checkpoint whose every byte is as it was written, and says which ones were not."""

from pathlib import Path

import pytest

from tests.train.checkpoint.test_commit import alone, save
from train.checkpoint.recovery import latest_valid_checkpoint, newest_checkpoint


def settle(folder: Path):
    return latest_valid_checkpoint(folder, rank=0, gather=alone)


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:5] + bytes([content[5] ^ 4]) + content[6:])


def test_a_new_run_has_no_checkpoint(tmp_path):
    assert settle(tmp_path / "new") == (None, [])


def test_the_checkpoint_with_the_most_steps_is_taken(tmp_path):
    save(tmp_path, 9)
    newest = save(tmp_path, 100)  # after step_9 also in the order of text
    (tmp_path / "step_00000200.partial").mkdir()  # killed while saving
    assert settle(tmp_path) == (newest, [])
    assert not (tmp_path / "step_00000200.partial").exists()


@pytest.mark.parametrize("name", ["manifest.json", "config.json", "training/rank_00000.safetensors"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_taken(tmp_path, name):
    before, newest = save(tmp_path, 9), save(tmp_path, 10)
    damage(newest / name)
    folder, [notice] = settle(tmp_path)
    assert folder == before
    assert str(newest / name) in notice and "step_00000010.damaged" in notice
    assert not newest.exists() and (tmp_path / "step_00000010.damaged" / name).is_file()


def test_damage_that_another_rank_found_counts(tmp_path):
    before, _ = save(tmp_path, 9), save(tmp_path, 10)
    told = []

    def gather(value):
        told.append(value)
        says = "it is damaged" if len(told) == 3 else None  # ranks, folder, damage
        return [value, says]

    folder, [notice] = latest_valid_checkpoint(tmp_path, rank=0, gather=gather)
    assert folder == before and notice.startswith("note: it is damaged")


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_again(tmp_path):
    for step in (1, 2):
        damage(save(tmp_path, step) / "config.json")
    with pytest.raises(ValueError, match=r"is damaged \(step_00000001.damaged, step_00000002.damaged\)"):
        settle(tmp_path)
    assert isinstance(newest_checkpoint(tmp_path), ValueError)
