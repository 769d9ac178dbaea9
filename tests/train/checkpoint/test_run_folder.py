"""A run resumes in its own folder, from its newest sound checkpoint, and mixes with no other."""

import dataclasses
import re
from pathlib import Path

import pytest

from tests.train.checkpoint.test_commit import ALONE, snapshot
from train.checkpoint.commit import commit
from train.checkpoint.run_folder import check_resume, check_run_folder, save_run_config
from train.config.recipe_file import read_recipe
from train.config.run_config import RunConfig
from train.config.run_paths import checkpoints_dir

COMPATIBILITY = {"seed": 0, "lr": 0.001}


def run_config(folder, **fields) -> RunConfig:
    return RunConfig("shards", run_dir=str(folder), **fields)


def write_checkpoint(run_dir: Path, step: int, *, compatibility: dict = COMPATIBILITY) -> Path:
    tiny = snapshot(checkpoints_dir(run_dir), step)
    commit(dataclasses.replace(tiny, facts=tiny.facts | {"resume_compatibility": compatibility}), ALONE)
    (run_dir / "run.yaml").touch()
    return tiny.folder


def damage(folder: Path) -> None:
    (folder / "config.json").write_text("{ }")


def test_the_newest_sound_checkpoint_is_the_one_to_resume_from(tmp_path):
    config = run_config(tmp_path)
    sound = write_checkpoint(tmp_path, 9)
    damage(write_checkpoint(tmp_path, 10, compatibility={"seed": 7}))
    checkpoint = check_run_folder(config)
    assert checkpoint.folder == sound
    check_resume(config, COMPATIBILITY, checkpoint)


def test_another_kind_of_run_is_refused(tmp_path):
    folder = write_checkpoint(tmp_path, 10)
    checkpoint, other = check_run_folder(run_config(tmp_path)), COMPATIBILITY | {"seed": 1}
    with pytest.raises(ValueError, match=re.escape(f"{folder} was written with seed=0 but this run has seed=1")):
        check_resume(run_config(tmp_path), other, checkpoint)
    check_resume(run_config(tmp_path, allow_mismatch=["seed"]), other, checkpoint)


def test_a_wrong_allow_mismatch_is_refused_before_the_first_checkpoint_too(tmp_path):
    with pytest.raises(ValueError, match="allow_mismatch names 'learning_rate', which is not compared.*lr"):
        check_resume(run_config(tmp_path, allow_mismatch=["learning_rate"]), COMPATIBILITY, None)


def test_a_run_without_any_sound_checkpoint_does_not_restart_from_step_0(tmp_path):
    damage(write_checkpoint(tmp_path, 10))
    with pytest.raises(ValueError, match=r"none of the 1 checkpoints in .* is sound \(.*config.json is 3 bytes"):
        check_run_folder(run_config(tmp_path))


def test_a_run_killed_in_its_first_save_restarts(tmp_path):
    (tmp_path / "run.yaml").touch()
    (tmp_path / "checkpoints" / "step_00000010.partial").mkdir(parents=True)
    assert check_run_folder(run_config(tmp_path)) is None
    check_resume(run_config(tmp_path), COMPATIBILITY, None)


def test_run_yaml_is_a_recipe_of_the_same_run(tmp_path):
    config = run_config(tmp_path / "run", lr=3e-4, loggers=["csv"])
    save_run_config(config)
    assert read_recipe(tmp_path / "run" / "run.yaml") == config


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_a_new_or_empty_run_dir_is_accepted(tmp_path, resume):
    check_run_folder(run_config(tmp_path, resume=resume))
    check_run_folder(run_config(tmp_path / "new", resume=resume))


def test_a_run_dir_that_a_killed_start_left_without_run_yaml_is_accepted(tmp_path):
    (tmp_path / "heartbeats").mkdir()
    (tmp_path / ".run.yaml.4711.tmp").touch()
    check_run_folder(run_config(tmp_path))


@pytest.mark.parametrize("resume", ["auto", "must", "never"])
def test_a_run_dir_that_holds_something_else_is_refused(tmp_path, resume):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path} exists") + ".*run.yaml"):
        check_run_folder(run_config(tmp_path, resume=resume))


def test_a_run_dir_that_holds_a_run_is_resumed_unless_that_is_forbidden(tmp_path):
    write_checkpoint(tmp_path, 10)
    for resume in ("auto", "must"):
        check_run_folder(run_config(tmp_path, resume=resume))
    with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + ".*resume=never"):
        check_run_folder(run_config(tmp_path, resume="never"))


@pytest.mark.parametrize("exists", [False, True])
def test_a_run_that_must_be_resumed_must_have_a_checkpoint(tmp_path, exists):
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
        (folder / "run.yaml").touch()
    with pytest.raises(ValueError, match=re.escape(f"resume=must, but run_dir {folder} holds no checkpoint")):
        check_run_folder(run_config(folder, resume="must"))
