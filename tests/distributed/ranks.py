"""Run a function on several gloo ranks, each a process of its own, and collect what they return."""

import os
import tempfile
import time
from pathlib import Path

import torch

from tests.processes import Process
from train.processes.ranks import free_port


def run_ranks(function, world_size: int, *, timeout_seconds: float = 600, **arguments) -> list:
    """Call function(**arguments) on every rank inside a process group, and return the results by rank.

    function: importable by module and name. A rank that fails ends the others.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), str(free_port())
        ranks = [_start(function, arguments, rank, world_size, port, folder) for rank in range(world_size)]
        try:
            codes = _wait(ranks, deadline=time.monotonic() + timeout_seconds)
        finally:
            for rank in ranks:
                rank.kill()
        failed = [rank for rank, code in enumerate(codes) if code != 0]  # None for a rank that was still running
        logs = [f"rank {rank} ended with {codes[rank]}:\n{_tail(folder, rank)}" for rank in failed]
        # The rank that failed first says why; the others report only that it is gone.
        logs.sort(key=lambda log: "Connection closed by peer" in log)
        assert not failed, "\n".join(logs)
        return [torch.load(folder / f"{rank}.pt") for rank in range(world_size)]


def _wait(ranks: list[Process], *, deadline: float) -> list[int | None]:
    """The exit codes by rank; None for a rank that still runs a second after another has failed, or at the deadline."""
    while time.monotonic() < deadline:
        codes = [rank.poll() for rank in ranks]
        if None not in codes:
            return codes
        if any(codes):
            deadline = min(deadline, time.monotonic() + 1)
        time.sleep(0.01)
    return [rank.poll() for rank in ranks]


def _tail(folder: Path, rank: int) -> str:
    return (folder / f"{rank}.log").read_text()[-4000:]


def _start(function, arguments: dict, rank: int, world_size: int, port: str, folder: Path) -> Process:
    environment = {
        **os.environ, "RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    return Process(_rank, function, arguments, folder, environment=environment, log=folder / f"{rank}.log")


def _rank(function, arguments: dict, folder: Path) -> None:
    """One rank: join the process group, call the function, save its result."""
    from train.processes.process_group import start_process_group
    from train.processes.ranks import read_ranks

    ranks = read_ranks(os.environ)
    start_process_group(ranks)
    torch.save(function(**arguments), folder / f"{ranks.rank}.pt")
    # Leave together and in order: gloo's threads must not be running when the interpreter goes.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
