"""A run resumes from the newest checkpoint whose every byte is as it was written, and reports the damaged ones."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from data_prep.storage.sealed_json import sealed_json
from tests.train.checkpoint.test_commit import ALONE, save
from train.checkpoint.files.manifest import MANIFEST, read_manifest
from train.checkpoint.folders import quarantined_checkpoints
from train.checkpoint.recovery import latest_valid_checkpoint


def recover(checkpoints: Path) -> tuple[Path | None, list[str]]:
    checkpoint, notices = latest_valid_checkpoint(checkpoints, ALONE)
    return checkpoint and checkpoint.folder, notices


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:5] + bytes([content[5] ^ 4]) + content[6:])


def write_other_schema(checkpoint: Path) -> None:
    """A sound manifest in the form of other code."""
    facts = read_manifest(checkpoint) | {"schema_version": 0, "files": {"config.json": [20, "digest"]}}
    (checkpoint / MANIFEST).write_bytes(sealed_json(facts, kind="checkpoint"))


def test_a_new_run_has_no_checkpoint(tmp_path):
    assert recover(tmp_path / "new") == (None, [])


def test_the_checkpoint_with_the_most_steps_is_taken(tmp_path):
    save(tmp_path, 9)
    newest = save(tmp_path, 100)
    (tmp_path / "step_00000200.partial").mkdir()  # killed while saving
    assert recover(tmp_path) == (newest, [])
    assert not (tmp_path / "step_00000200.partial").exists()


def test_the_manifest_comes_with_the_checkpoint(tmp_path):
    save(tmp_path, 9)
    checkpoint, _ = latest_valid_checkpoint(tmp_path, ALONE)
    assert checkpoint.manifest["step"] == 9


@pytest.mark.parametrize("name", ["manifest.json", "config.json", "training/rank_00000.safetensors"])
def test_a_damaged_checkpoint_is_quarantined_and_the_one_before_it_is_taken(tmp_path, name):
    before, newest = save(tmp_path, 9), save(tmp_path, 10)
    damage(newest / name)
    folder, [notice] = recover(tmp_path)
    assert folder == before
    assert str(newest / name) in notice and "step_00000010.damaged" in notice
    assert not newest.exists() and (tmp_path / "step_00000010.damaged" / name).is_file()


def test_a_checkpoint_of_another_schema_is_refused_and_keeps_its_name(tmp_path):
    save(tmp_path, 9)
    newest = save(tmp_path, 10)
    write_other_schema(newest)
    with pytest.raises(ValueError, match=r"step_00000010/manifest.json was written with schema_version 0, but .* 1;"):
        recover(tmp_path)
    assert newest.is_dir() and quarantined_checkpoints(tmp_path) == []


@dataclass
class FirstOfTwo:
    """Rank 0 of two, where rank 1 finds damage in the first checkpoint."""

    rank: int = 0
    size: int = 2
    num_gathered: int = 0

    def gather(self, value) -> list:
        self.num_gathered += 1
        is_of_damage = self.num_gathered == 2  # the first gather is of the folder
        return [value, ValueError("it is damaged") if is_of_damage else None]


def test_damage_that_another_rank_finds_counts(tmp_path):
    before, _ = save(tmp_path, 9), save(tmp_path, 10)
    checkpoint, [notice] = latest_valid_checkpoint(tmp_path, FirstOfTwo())
    assert checkpoint.folder == before and notice.startswith("note: it is damaged")


def test_a_run_whose_checkpoints_are_all_damaged_does_not_restart_from_step_0(tmp_path):
    for step in (1, 2):
        damage(save(tmp_path, step) / "config.json")
    for _ in range(2):  # damaged at first, in quarantine then
        with pytest.raises(ValueError, match=r"is damaged \(step_00000001.damaged, step_00000002.damaged\)"):
            recover(tmp_path)
