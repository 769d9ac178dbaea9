"""A run starts with the recipe that was checked, and is awaited if it outlived its study."""

import subprocess
import sys

import pytest

from launch.study.process import Stop, train_run
from launch.study.recipes import read_study
from launch.study.runs import runs_by_seed
from tests.tiny_study import finish, write_study
from train.config.arguments import load_run_config


@pytest.fixture
def study(tmp_path, tiny_data):
    return read_study(write_study(tmp_path / "recipes", tiny_data, "dense"), may_differ=[])


def edit(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_run_starts_with_the_recipe_that_was_checked(study, tmp_path):
    run = runs_by_seed(study, tmp_path / "study", num_seeds=1, variants=["dense"])[0][0]
    edit(tmp_path / "recipes" / "base.yaml", "lr: 0.01", "lr: nonsense")
    stop = Stop()

    def stop_at_once():
        stop.is_requested = True

    assert train_run(run, num_ranks=1, stop=stop, watch=stop_at_once, print_line=print) is None
    assert load_run_config(["--config", str(run.frozen_recipe)]) == run.config
    assert f"--config {run.frozen_recipe}" in run.log.read_text()


def test_a_run_that_outlived_its_study_is_waited_for(study, tmp_path):
    printed = []
    run = runs_by_seed(study, tmp_path / "study", num_seeds=1, variants=["dense"])[0][0]
    run.log.parent.mkdir(parents=True)
    with open(run.log, "ab") as log:  # the lock lasts while the process has the file as its output
        hold = "import fcntl, time; fcntl.flock(1, fcntl.LOCK_EX); print('locked', flush=True); time.sleep(1.5)"
        process = subprocess.Popen([sys.executable, "-c", hold], stdout=log)
    while "locked" not in run.log.read_text():
        pass
    finish(run)
    assert train_run(run, num_ranks=1, stop=Stop(), watch=lambda: None, print_line=printed.append) == 0
    assert process.poll() is not None or process.wait(timeout=1) == 0
    assert "a process of another study is still training it" in printed[0] and "$" not in run.log.read_text()
