"""The workers of a pool end with their command, and the command ends with them."""

import argparse
import os
import signal
import subprocess
import sys
import time

import pytest

from data_prep.processes import worker_pool as module
from data_prep.processes.worker_pool import num_cores, resolve_workers, worker_pool, workers_or_auto

COMMAND = """
import os, signal
from data_prep.processes.worker_pool import worker_pool

if __name__ == "__main__":
    with worker_pool(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        signal.pause()
"""


def test_workers_are_a_number_or_one_per_core(monkeypatch):
    monkeypatch.setattr(module, "num_cores", lambda: 8)
    assert [resolve_workers(workers_or_auto(text)) for text in ("3", "auto")] == [3, 8]
    assert [resolve_workers(None, num_on_host=ranks) for ranks in (3, 16)] == [2, 1]
    for text in ("0", "-1", "many"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"{text} must be at least 1, or auto"):
            workers_or_auto(text)


@pytest.mark.parametrize(("quota", "expected"), [("200000 100000", 2), ("max 100000", 5), ("50000 100000", 1)])
def test_a_container_has_the_cores_of_its_quota(tmp_path, monkeypatch, quota, expected):
    (tmp_path / "cpu.max").write_text(quota + "\n")
    monkeypatch.setattr(module, "CGROUP_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(5))
    assert num_cores() == expected


def test_a_killed_worker_is_reported():
    with pytest.raises(OSError, match="a worker process was killed, perhaps out of memory; use fewer --workers"):
        with worker_pool(1) as pool:
            pool.submit(os.kill, pool.submit(os.getpid).result(), signal.SIGKILL).result()


def test_a_killed_command_takes_its_workers_with_it(tmp_path):
    (tmp_path / "command.py").write_text(COMMAND)
    environ = os.environ | {"PYTHONPATH": os.getcwd()}
    command = subprocess.Popen([sys.executable, tmp_path / "command.py"], stdout=subprocess.PIPE, env=environ)
    worker = int(command.stdout.readline())
    command.kill()
    give_up = time.monotonic() + 10
    while is_running(worker) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not is_running(worker)


def is_running(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
