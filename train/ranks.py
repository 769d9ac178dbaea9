"""Ranks: who this process is among the others, whichever launcher started it, and the process group they form."""

import os
from dataclasses import dataclass

import deepspeed
import deepspeed.ops
import torch
from deepspeed.accelerator import get_accelerator

from train.host_memory import keep_freed_memory

# rank, world size, local rank and local world size, as each launcher names them
_LAUNCHERS = {
    "torchrun or deepspeed": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "Slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),
    "Open MPI": (
        "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"
    ),
    "MPICH": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
}  # fmt: skip


@dataclass(frozen=True)
class Ranks:
    """This process among world_size; local_rank counts on its host and names its device."""

    rank: int
    world_size: int
    local_rank: int


def read_ranks(environ: dict[str, str]) -> Ranks:
    """The ranks that a launcher put into the environment; one process where there was none.

    ValueError where several hosts are started without MASTER_ADDR.
    """
    for launcher, (rank, world_size, local_rank, local_size) in _LAUNCHERS.items():
        if rank in environ and world_size in environ:
            ranks = Ranks(int(environ[rank]), int(environ[world_size]), int(environ.get(local_rank, 0)))
            one_host = environ.get(local_size, environ[world_size]) == environ[world_size]
            if "MASTER_ADDR" not in environ and not one_host:
                raise ValueError(
                    f"{launcher} started {ranks.world_size} processes on several hosts, but MASTER_ADDR is not set; "
                    "export the first host's name as MASTER_ADDR (launch/slurm.sh and launch/mpi.sh do)"
                )
            return ranks
    return Ranks(rank=0, world_size=1, local_rank=0)


def start_process_group(ranks: Ranks) -> torch.device:
    """Collective over all ranks: form the process group and return this rank's device."""
    os.environ.update(RANK=str(ranks.rank), WORLD_SIZE=str(ranks.world_size), LOCAL_RANK=str(ranks.local_rank))
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")
    accelerator = get_accelerator()
    if accelerator.device_name() == "cpu":
        # DeepSpeed would compile a C++ helper for some 100 s that training never calls; a process killed
        # meanwhile leaves a lock on which later runs wait for ever.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        keep_freed_memory()
    else:
        accelerator.set_device(ranks.local_rank)
    deepspeed.init_distributed(accelerator.communication_backend_name(), auto_mpi_discovery=False, verbose=False)
    return torch.device(accelerator.current_device_name())
