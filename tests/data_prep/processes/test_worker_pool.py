"""The workers of a pool end with their command, and the command ends with them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from data_prep.processes.worker_pool import worker_pool

COMMAND = """
import os, signal
from data_prep.processes.worker_pool import worker_pool

if __name__ == "__main__":
    with worker_pool(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        signal.pause()
"""


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
