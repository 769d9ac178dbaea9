"""A process remembers a stop request; a second one, later, ends it at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from train.processes.project_root import ROOT
from train.processes.stop_request import StopRequest

WAITS = """
import ctypes, sys, time
busy = sys.argv[2] == "True"
from train.processes.stop_request import StopRequest
stop = StopRequest(sys.argv[1])
stop.listen()
print("listening", flush=True)
while True:
    time.sleep(0.01)
    if stop.is_made():
        print("asked", flush=True)
        mutex = ctypes.create_string_buffer(64)
        for _ in range(2 if busy else 0):  # a deadlock, like a collective that waits for a rank that is gone
            ctypes.CDLL(None).pthread_mutex_lock(mutex)
        time.sleep(100)
"""


@pytest.fixture
def handlers():
    """Restore the signal handlers of this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_is_remembered(tmp_path, handlers, number):
    stop = StopRequest(tmp_path)
    stop.listen()
    assert not stop.is_made()
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), signal.SIGTERM)  # forwarded by a launcher that received the signal too
    deadline = time.monotonic() + 5
    while not stop.is_made() and time.monotonic() < deadline:  # a thread receives it
        time.sleep(0.001)
    assert stop.is_made()


def test_a_file_is_a_request_until_it_is_cleared(tmp_path):
    stop = StopRequest(tmp_path)
    (tmp_path / "STOP").touch()
    assert stop.is_made()
    stop.clear()
    stop.clear()
    assert not stop.is_made()


def test_the_disk_is_asked_once_a_second_at_most(tmp_path, monkeypatch):
    times, looks = iter((100.0, 100.5, 100.9, 101.1, 101.2)), []
    monkeypatch.setattr("train.processes.stop_request.time.monotonic", lambda: next(times))
    monkeypatch.setattr(Path, "exists", lambda path: looks.append(path) or True)
    stop = StopRequest(tmp_path)
    assert all(stop.is_made() for _ in range(5))
    assert looks == [tmp_path / "STOP"] * 2  # at 100.0 and at 101.1


def test_a_rank_that_does_not_look_for_the_file_still_receives_signals(tmp_path, handlers):
    stop = StopRequest(tmp_path, looks_for_file=False)
    stop.listen()
    (tmp_path / "STOP").touch()
    assert not stop.is_made()
    os.kill(os.getpid(), signal.SIGTERM)
    deadline = time.monotonic() + 5
    while not stop.is_made() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert stop.is_made()


@pytest.mark.parametrize("busy", [False, True], ids=["in Python", "in a call that never returns to Python"])
def test_a_second_signal_ends_the_process_at_once(tmp_path, busy):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS, str(tmp_path), str(busy)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "listening\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "asked\n"
    time.sleep(2.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=2) == 128 + signal.SIGTERM
