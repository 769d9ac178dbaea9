"""Share work among the processes that an MPI launcher started; without a launcher, there is one rank.

MPI is imported only if a launcher started several processes: most machines have no MPI library.
"""

import functools
import heapq
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_prep.processes.launchers import LAUNCHERS

_MPI_LAUNCHERS = ("Open MPI", "MPICH", "Slurm")  # Slurm last: mpirun starts its daemons as a step of Slurm
_POLL_SECONDS = 0.05
_SECONDS_TO_FORWARD = 1.0  # the launcher forwards a rank's output, but not after an abort


@dataclass(frozen=True)
class MpiRanks:
    """This process among `world_size` processes."""

    rank: int = 0
    world_size: int = 1
    num_on_host: int = 1  # processes that share this host's cores
    world: Any = None  # MPI.COMM_WORLD; None for one process

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's `value`. Collective over the world: every rank must call it."""
        return self.world.bcast(value) if self.world else value

    def gather(self, value: Any) -> list | None:
        """Return the values of all ranks on rank 0, None elsewhere. Collective over the world."""
        return self.world.gather(value) if self.world else [value]

    def sum(self, numbers: np.ndarray) -> np.ndarray:
        """Return the sum over ranks on rank 0, an undefined value elsewhere. Collective over the world."""
        total = numbers.copy()
        if self.world:
            self.world.Reduce(numbers, total)
        return total

    def wait(self) -> None:
        """Return when all ranks have called it. MPI's own barrier would keep a core busy while others work on it."""
        request = self.world.Ibarrier() if self.world else None
        while request and not request.Test():
            time.sleep(_POLL_SECONDS)


ONE_PROCESS = MpiRanks()


def find_ranks(environ: dict[str, str] | None = None) -> MpiRanks:
    """Return this process among those that the launcher started; ValueError if MPI counts another number of them."""
    launcher, world_size = launched(os.environ if environ is None else environ)
    if world_size == 1:
        return ONE_PROCESS
    MPI = _import_mpi(launcher, world_size)
    world = MPI.COMM_WORLD
    if world.size != world_size:
        raise ValueError(
            f"{launcher} started {world_size} processes, but MPI counts {world.size}: mpi4py uses another MPI library, "
            "or Slurm starts processes without MPI; use that library's mpirun, or srun --mpi=pmix or --mpi=pmi2"
        )
    num_on_host = world.Split_type(MPI.COMM_TYPE_SHARED).size
    return MpiRanks(world.rank, world_size, num_on_host, world)


def launched(environ: dict[str, str]) -> tuple[str, int]:
    """Return the launcher that started this process, and its number of processes; ("", 1) without a launcher."""
    for launcher in _MPI_LAUNCHERS:
        name = LAUNCHERS[launcher].world_size
        if name in environ:
            return launcher, int(environ[name])
    return "", 1


def divide(sizes: list[int], num_shares: int) -> list[list[int]]:
    """Return the items of each share, in order: the largest items are dealt first, each to the smallest share.

    An unknown size is 0, and counts as 1, so that such items do not all fall to one share.
    """
    shares: list[list[int]] = [[] for _ in range(num_shares)]
    loads = [(0, share) for share in range(num_shares)]
    for item in sorted(range(len(sizes)), key=lambda item: (-sizes[item], item)):
        load, share = loads[0]
        shares[share].append(item)
        heapq.heapreplace(loads, (load + max(sizes[item], 1), share))
    return [sorted(share) for share in shares]


def ranks_end_together(main: Callable[..., int]) -> Callable[..., int]:
    """Wrap `main(argv=None)`: a rank that fails ends all other ranks, which would wait for it, with its exit status."""

    @functools.wraps(main)
    def main_of_a_rank(argv: list[str] | None = None) -> int:
        try:
            status = main(argv)
        except Exception:
            if not _is_one_of_several():
                raise
            traceback.print_exc()
            status = 1
        if status and _is_one_of_several():
            sys.stdout.flush()
            sys.stderr.flush()
            time.sleep(_SECONDS_TO_FORWARD)
            sys.modules["mpi4py.MPI"].COMM_WORLD.Abort(status)
        return status

    return main_of_a_rank


def _is_one_of_several() -> bool:
    """Whether this process runs under MPI with other ranks; for one process MPI is never imported."""
    return "mpi4py.MPI" in sys.modules and sys.modules["mpi4py.MPI"].COMM_WORLD.size > 1


def _import_mpi(launcher: str, world_size: int) -> Any:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: there is no MPI library
        raise ValueError(
            f"{launcher} started {world_size} processes, but mpi4py cannot be imported: {error}; install mpi4py and "
            "an MPI library, or start one process"
        ) from error
    return MPI
