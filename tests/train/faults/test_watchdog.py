"""A rank that is stopped or stuck is named by the others within two seconds after the timeout."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from train.faults.watchdog import Heartbeat, Watchdog
from train.processes.project_root import ROOT

TIMEOUT = 2.0
RANK = """
import sys, threading, time
from pathlib import Path
from train.processes.waiting import waiting
from train.faults.watchdog import Watchdog
folder, rank, behaviour = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
def fail(report):
    (folder / f"report_{rank}").write_text(f"{time.time()}\\n{report}")
dog = Watchdog(folder, rank=rank, world_size=2, timeout_seconds=2.0, fail=fail)
dog.start()
def wait_for_the_other():
    time.sleep(1000)
for step in range(5):
    dog.at(step)
    time.sleep(0.1)
if behaviour == "works":
    while True:
        dog.at(5)
        time.sleep(0.1)
if behaviour.startswith("saves"):
    dog.at(5, "saving")
def wait_in_a_collective():
    exec(compile("time.sleep(1000)", "/torch/distributed/gather.py", "exec"))
if behaviour == "saves and waits":
    wait_in_a_collective()
if behaviour == "saves in a thread and waits":
    thread = threading.Thread(target=wait_in_a_collective, daemon=True)
    thread.start()
    thread.join()
if behaviour == "saves and waits for a device":
    with waiting():
        wait_for_the_other()
if behaviour == "is ahead":
    dog.at(6)
wait_for_the_other()
"""


@pytest.fixture
def start(tmp_path):
    """Start a rank with a behaviour; every rank is killed at the end of the test."""
    processes = []

    def start(rank: int, behaviour: str) -> subprocess.Popen:
        command = [sys.executable, "-c", RANK, str(tmp_path), str(rank), behaviour]
        processes.append(subprocess.Popen(command, cwd=ROOT))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def report(folder: Path, rank: int, *, within_seconds: float) -> tuple[float, str] | None:
    """The time and the text of a rank's report; None if there is none within the given time."""
    deadline = time.time() + within_seconds
    while time.time() < deadline:
        path = folder / f"report_{rank}"
        if path.exists() and path.read_text():
            reported, text = path.read_text().split("\n", 1)
            return float(reported), text
        time.sleep(0.05)
    return None


def wait_until_in(folder: Path, rank: int, function: str) -> None:
    """Wait until the rank's heartbeat shows the function on its stack."""
    path = folder / f"rank_{rank:05d}.json"
    while not path.exists() or function not in json.loads(path.read_text())["stack"]:
        time.sleep(0.02)


def test_a_stopped_rank_is_named_with_its_step_and_stack(start, tmp_path):
    first, _ = start(0, "waits"), start(1, "waits")
    for rank in range(2):
        wait_until_in(tmp_path, rank, "wait_for_the_other")
    stopped = time.time()
    os.kill(first.pid, signal.SIGSTOP)
    found = report(tmp_path, 1, within_seconds=10)
    assert found and found[0] - stopped < TIMEOUT + 2
    assert "silent: rank 0" in found[1]
    assert "rank 0: last seen at step 4, training" in found[1] and "wait_for_the_other" in found[1]


def test_a_rank_that_is_behind_is_named_by_all(start, tmp_path):
    start(0, "waits")
    start(1, "is ahead")
    reports = [report(tmp_path, rank, within_seconds=10) for rank in range(2)]
    assert all("stuck: rank 0" in text for _, text in reports)


def test_ranks_that_all_wait_in_a_save_end_as_in_a_step(start, tmp_path):
    start(0, "saves and waits")
    start(1, "saves in a thread and waits")
    for rank in range(2):
        wait_until_in(tmp_path, rank, "gather.py")
    waiting = time.time()
    reports = [report(tmp_path, rank, within_seconds=10) for rank in range(2)]
    assert all(found and found[0] - waiting < TIMEOUT + 2 for found in reports)
    assert all("stuck: rank 0, 1" in text and "step 5, saving" in text and "gather.py" in text for _, text in reports)


def test_ranks_that_wait_inside_a_marked_wait_end_as_in_a_collective(start, tmp_path):
    for rank in range(2):
        start(rank, "saves and waits for a device")
    for rank in range(2):
        wait_until_in(tmp_path, rank, "wait_for_the_other")
    waiting = time.time()
    reports = [report(tmp_path, rank, within_seconds=10) for rank in range(2)]
    assert all(found and found[0] - waiting < TIMEOUT + 2 for found in reports)


@pytest.mark.parametrize("behaviours", [("works", "works"), ("saves", "saves"), ("saves and waits", "saves")])
def test_a_busy_rank_is_not_reported(start, tmp_path, behaviours):
    for rank, behaviour in enumerate(behaviours):
        start(rank, behaviour)
    assert report(tmp_path, 0, within_seconds=2 * TIMEOUT + 1) is None


def test_a_rank_that_never_started_is_silent(tmp_path):
    dog = Watchdog(tmp_path, rank=0, world_size=2, timeout_seconds=1, fail=print)
    beats = [Heartbeat(0, 10, 3, "training", "here\n"), Heartbeat(1, 0, 0, "never seen", "")]
    dog._counts = {0: 9, 1: 0}
    assert "silent: rank 1" in dog._diagnose(beats)
