"""The process group of a run, started without the extension that DeepSpeed compiles on a CPU."""

import logging
import os
import warnings
from datetime import timedelta

import deepspeed
import deepspeed.ops
import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.constants import default_pg_timeout
from torch.distributed import distributed_c10d

from train.processes.ranks import Ranks, free_port


def start_process_group(ranks: Ranks, *, timeout_seconds: float = 0) -> torch.device:
    """Collective over all ranks: form the process group and return this rank's device.

    timeout_seconds: the time after which a watchdog ends a rank that waits for another one. Collectives wait longer,
    so that it is the watchdog that reports.
    """
    os.environ.update(RANK=str(ranks.rank), WORLD_SIZE=str(ranks.world_size), LOCAL_RANK=str(ranks.local_rank))
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    # A single process needs no agreed port, and with a fixed one, two runs on a machine would collide.
    os.environ.setdefault("MASTER_PORT", "29500" if ranks.world_size > 1 else str(free_port()))
    accelerator = get_accelerator()
    if accelerator.device_name() == "cpu":
        # DeepSpeed would compile a C++ helper for some 100 s that training never calls. A process killed meanwhile
        # leaves a lock on which later runs wait for ever.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    else:
        accelerator.set_device(ranks.local_rank)
    timeout = max(default_pg_timeout, timedelta(seconds=2 * timeout_seconds))
    # DeepSpeed creates groups without a timeout, for which torch reads these: 10 minutes with NCCL.
    distributed_c10d.default_pg_timeout = distributed_c10d.default_pg_nccl_timeout = timeout
    deepspeed.init_distributed(
        accelerator.communication_backend_name(), auto_mpi_discovery=False, verbose=False, timeout=timeout
    )
    return torch.device(accelerator.current_device_name())


def silence_libraries() -> None:
    """Hide log lines and warnings that a user can do nothing about."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed calls collectives by names that torch is about to change.
    warnings.filterwarnings("ignore", message=".*is deprecated. Please use `torch.distributed", category=FutureWarning)
