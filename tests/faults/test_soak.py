"""A run with ten minutes of faults ends with the bytes of a run without any."""

import json
import subprocess
import sys

import pytest

from train.processes.project_root import ROOT

SIGNALS = ["--attempts", "30", "--faults", "terminate one", "signal one", "stop file"]


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("arguments", [[], SIGNALS], ids=["all faults", "requests to stop"])
def test_faults_leave_no_trace(arguments):
    command = [sys.executable, "-m", "tests.faults.soak", "--minutes", "10", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    report = json.loads(result.stdout[result.stdout.index("{") :])
    assert report["losses_are_equal"] and report["weights_are_equal"], report
