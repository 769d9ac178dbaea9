"""Run a function on several gloo ranks, each a process of its own, and collect what they return."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from train.processes.project_root import ROOT
from train.processes.ranks import free_port


def run_ranks(function, world_size: int, *, timeout_seconds: float = 240, **arguments) -> list:
    """Call function(**arguments) on every rank inside a process group; the results by rank.

    function: importable by module and name. arguments: JSON values.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", __name__, function.__module__, function.__name__]
        command += [json.dumps(arguments), folder]
        port = str(free_port())
        processes = [_start(command, rank, world_size, port, folder) for rank in range(world_size)]
        codes = [process.wait(timeout=timeout_seconds) for process in processes]
        logs = [f"rank {rank} ended with {code}:\n{_tail(folder, rank)}" for rank, code in enumerate(codes) if code]
        # The rank that failed first tells why; the others only say that it is gone.
        logs.sort(key=lambda log: "Connection closed by peer" in log)
        assert not logs, "\n".join(logs)
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(world_size)]


def _tail(folder: str, rank: int) -> str:
    return Path(folder, f"{rank}.log").read_text()[-4000:]


def _start(command: list[str], rank: int, world_size: int, port: str, folder: str) -> subprocess.Popen:
    environment = {
        **os.environ, "RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    log = open(Path(folder) / f"{rank}.log", "w")
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


def _main(module: str, name: str, arguments: str, folder: str) -> None:
    from train.processes.process_group import start_process_group
    from train.processes.ranks import read_ranks

    ranks = read_ranks(os.environ)
    start_process_group(ranks)
    result = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    torch.save(result, Path(folder) / f"{ranks.rank}.pt")
    # Leave together and in order: gloo's threads must not be running when the interpreter goes.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _main(*sys.argv[1:])
