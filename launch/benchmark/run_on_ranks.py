"""Start the ranks of the benchmark, each a process of its own on this machine, and collect their results."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from train.processes.project_root import ROOT
from train.processes.ranks import free_port


def run_on_ranks(function, world_size: int, *, device: str, threads: int, **arguments) -> list:
    """Call function(rank=..., **arguments) on every rank of one process group, and return the results by rank.

    function: importable by module and name. arguments and results: JSON values. Rank 0 prints to the screen.
    RuntimeError, with the end of its output, if a rank fails; the other ranks are killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", __name__, function.__module__, function.__name__]
        command += [json.dumps(arguments), folder]
        environment = {
            **os.environ, "WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
            "DS_ACCELERATOR": device, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false",
        }  # fmt: skip
        processes = [_start(command, environment, rank, folder) for rank in range(world_size)]
        try:
            _wait(processes, folder)
        finally:
            for process in processes:
                process.kill()  # does nothing to a process that has ended
                process.wait()
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(world_size)]


def _start(command: list[str], environment: dict, rank: int, folder: str) -> subprocess.Popen:
    environment = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    with open(Path(folder) / f"{rank}.log", "w") as log:
        output = None if rank == 0 else log
        return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=log)


def _wait(processes: list[subprocess.Popen], folder: str) -> None:
    """Wait for all to end; RuntimeError if one fails, since the others would wait for it forever."""
    while any(process.poll() is None for process in processes):
        if any(process.poll() for process in processes):
            break
        time.sleep(0.05)
    for rank, process in enumerate(processes):
        if process.poll():
            log = (Path(folder) / f"{rank}.log").read_text()
            raise RuntimeError(f"rank {rank} ended with exit status {process.returncode}:\n{log[-3000:]}")


def _main(module: str, name: str, arguments: str, folder: str) -> None:
    import torch.distributed as dist

    from train.processes.process_group import silence_libraries, start_process_group
    from train.processes.ranks import read_ranks

    silence_libraries()
    ranks = read_ranks(os.environ)
    start_process_group(ranks)
    result = getattr(importlib.import_module(module), name)(rank=ranks.rank, **json.loads(arguments))
    (Path(folder) / f"{ranks.rank}.json").write_text(json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    _main(*sys.argv[1:])
