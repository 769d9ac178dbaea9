"""Ranks: the number of this process among the others, whichever launcher started it."""

import socket
from dataclasses import dataclass

from data_prep.processes.launchers import LAUNCHERS


@dataclass(frozen=True)
class Ranks:
    """This process among world_size processes; local_rank is its number on its host, and that of its device."""

    rank: int
    world_size: int
    local_rank: int


def is_first_of_its_host(environ: dict[str, str]) -> bool:
    """Whether this process prints for its host, as far as the environment tells."""
    return all(environ.get(launcher.local_rank, "0") == "0" for launcher in LAUNCHERS.values())


def read_ranks(environ: dict[str, str]) -> Ranks:
    """The ranks that a launcher put into the environment; without a launcher, a single process.

    ValueError if processes on several hosts are started without MASTER_ADDR.
    """
    for launcher, (rank, world_size, local_rank, local_size) in LAUNCHERS.items():
        if rank in environ and world_size in environ:
            ranks = Ranks(int(environ[rank]), int(environ[world_size]), int(environ.get(local_rank, 0)))
            several_hosts = environ.get(local_size, environ[world_size]) != environ[world_size]
            if "MASTER_ADDR" not in environ and (several_hosts or environ.get("SLURM_STEP_NUM_NODES", "1") != "1"):
                raise ValueError(
                    f"{launcher} started {ranks.world_size} processes on several hosts, but MASTER_ADDR is not set; "
                    "export the first host's name as MASTER_ADDR (launch/slurm.sh and launch/mpi.sh do)"
                )
            return ranks
    return Ranks(rank=0, world_size=1, local_rank=0)


def free_port() -> int:
    """A port of this machine that no process listens on, for ranks to meet at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
