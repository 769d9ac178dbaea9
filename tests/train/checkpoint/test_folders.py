"""Checkpoints are found, kept, deleted and quarantined by their names and manifests."""

import pytest

from tests.train.checkpoint.test_commit import save
from tests.train.checkpoint.test_recovery import write_other_schema
from train.checkpoint.folders import (
    clean_up,
    find_model,
    find_newest,
    open_checkpoint,
    prune_checkpoints,
    quarantine,
    quarantined_checkpoints,
)
from train.config.run_paths import completed_checkpoints, step_of


def test_an_opened_checkpoint_knows_its_manifest(tmp_path):
    checkpoint = open_checkpoint(save(tmp_path, 7))
    assert checkpoint.folder == tmp_path / "step_00000007" and checkpoint.manifest["step"] == 7


def test_the_newest_checkpoint_that_opens_is_found_with_the_damage_of_newer_ones(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    (tmp_path / "step_00000003" / "config.json").write_text("short")
    (tmp_path / "step_00000002" / "manifest.json").unlink()
    checkpoint, damages = find_newest(tmp_path)
    assert checkpoint.manifest["step"] == 1
    assert "step_00000003/config.json is 5 bytes long" in damages[0] and "step_00000002 has no manifest" in damages[1]


def test_no_older_checkpoint_stands_in_for_one_of_another_schema(tmp_path):
    save(tmp_path, 1)
    write_other_schema(save(tmp_path, 2))
    with pytest.raises(ValueError, match="schema_version 0"):
        find_newest(tmp_path)


def test_a_folder_without_checkpoints_has_no_newest_one(tmp_path):
    assert find_newest(tmp_path / "nowhere") == (None, [])


def test_the_last_checkpoints_and_every_nth_are_kept(tmp_path):
    for step in range(1, 8):
        save(tmp_path, step)
    deleted = prune_checkpoints(tmp_path, keep_last=2, keep_every=3)
    assert sorted(map(step_of, deleted)) == [1, 2, 4, 5]
    assert [step_of(path) for path in completed_checkpoints(tmp_path)] == [7, 6, 3]
    assert prune_checkpoints(tmp_path, keep_last=0, keep_every=0) == []


def test_a_checkpoint_in_quarantine_is_kept_but_is_not_a_checkpoint(tmp_path):
    renamed = quarantine(save(tmp_path, 5))
    assert renamed.name == "step_00000005.damaged" and completed_checkpoints(tmp_path) == []
    clean_up(tmp_path)
    assert quarantined_checkpoints(tmp_path) == [renamed] and renamed.is_dir()  # evidence is not deleted


def test_the_model_of_a_run_is_its_newest_checkpoint(tmp_path):
    for step in (1, 2):
        save(tmp_path / "checkpoints", step)
    newest = tmp_path / "checkpoints" / "step_00000002"
    assert find_model(str(tmp_path)) == newest == find_model(str(newest))


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no model.*run_dir of a run that has saved"):
        find_model(str(tmp_path))
