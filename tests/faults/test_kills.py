"""A run killed at random moments resumes, loses no saved checkpoint, and computes the same losses."""

import json
import subprocess
import sys

import pytest

from train.processes.project_root import ROOT


def kill_runs(num_kills: int) -> dict:
    command = [sys.executable, "-m", "tests.faults.kill_runs", "--kills", str(num_kills)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.distributed
@pytest.mark.parametrize("num_kills", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_runs_equal_untouched_ones(num_kills):
    result = kill_runs(num_kills)
    assert result["kills"] >= num_kills and result["wrong"] == []
