"""The quickstart's commands exist, stop at the first failure, and produce a model."""

import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from launch import quickstart
from train.processes.project_root import ROOT

PROGRAM_FOLDERS = ("data_prep", "models", "train", "ds_configs", "launch")


def test_every_command_starts_a_program_of_this_repository():
    for command in quickstart.commands([]).values():
        program, *words = shlex.split(command)
        scripts = [word for word in words if word.endswith((".py", ".yaml"))]
        assert scripts or (program, words[0]) == ("python", "-m") and find_spec(words[1])
        assert all((ROOT / script).is_file() for script in scripts)


def test_options_reach_the_training_command():
    training = [
        command for command in quickstart.commands(["--max_steps", "5"]).values() if "launch/train.py" in command
    ]
    assert len(training) == 1 and training[0].endswith("quickstart.yaml --max_steps 5")


def test_the_first_failure_is_named_and_ends_it(capfd):
    steps = {"one": "python -c 'print(11)'", "two": "python -c 'exit(3)'", "three": "python -c 'print(33)'"}
    assert quickstart.run_commands(steps) == 3
    out, err = capfd.readouterr()
    assert "\n11\n" in out and "[2/3] two" in out and "three" not in out
    assert "failed with exit status 3" in err and steps["two"] in err


def test_unigram_perplexity_smooths_by_one():
    # (3 + 1) / 5 and (0 + 1) / 5, each on one of the two validation tokens: 1 / sqrt(0.8 * 0.2) = 2.5
    assert quickstart.unigram_perplexity(np.array([3, 0]), np.array([1, 1])) == pytest.approx(2.5)


@pytest.mark.slow
@pytest.mark.distributed
def test_the_quickstart_produces_a_model_that_generates(tmp_path):
    for folder in PROGRAM_FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "launch/quickstart.py", "--max_steps", "2", "--warmup_steps", "1"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "runs/quickstart/checkpoints/step_00000002" in finished.stdout
    plots = (tmp_path / "runs/quickstart/plots").iterdir()
    assert sorted(path.name for path in plots) == ["expert_load.png", "loss.png"]
