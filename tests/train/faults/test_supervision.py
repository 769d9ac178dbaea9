"""A rank that hangs writes an event and exits with its code, even if its standard error cannot be written."""

import json
import os
import subprocess
import sys

import pytest

from train.processes.exit_codes import EXIT_HANG
from train.processes.project_root import ROOT

RANK = """
import sys, time
from types import SimpleNamespace
from train.faults.supervision import start_watchdog
start_watchdog(SimpleNamespace(hang_timeout_seconds=1, run_dir=sys.argv[1]), rank=0, world_size=2)
time.sleep(1000)
"""


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def full_pipe() -> int:
    _, writer = os.pipe()  # the reader stays open but reads nothing
    os.set_blocking(writer, False)
    for size in (4096, 1):
        try:
            while True:
                os.write(writer, b"x" * size)
        except BlockingIOError:
            pass
    os.set_blocking(writer, True)
    return writer


@pytest.mark.parametrize("stderr", [closed_pipe, full_pipe])
def test_a_hang_ends_a_rank_that_cannot_print(tmp_path, stderr):
    rank = subprocess.Popen([sys.executable, "-c", RANK, str(tmp_path)], cwd=ROOT, stderr=stderr())
    try:
        assert rank.wait(timeout=60) == EXIT_HANG
    finally:
        rank.kill()
    event = json.loads((tmp_path / "events.jsonl").read_text())
    assert event["what"] == "hang" and "silent: rank 1" in event["report"]
