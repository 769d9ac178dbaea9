"""The process group of a run, started without DeepSpeed's compilations on a CPU."""

import os
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

    timeout_seconds: after which a watchdog ends a rank that waits for another; collectives wait longer than that, so
    that it is the watchdog who speaks.
    """
    os.environ.update(RANK=str(ranks.rank), WORLD_SIZE=str(ranks.world_size), LOCAL_RANK=str(ranks.local_rank))
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    # A process alone needs no agreed port, and a fixed one would make two runs on a machine collide.
    os.environ.setdefault("MASTER_PORT", "29500" if ranks.world_size > 1 else str(free_port()))
    accelerator = get_accelerator()
    if accelerator.device_name() == "cpu":
        # DeepSpeed would compile a C++ helper for some 100 s that training never calls; a process killed
        # meanwhile leaves a lock on which later runs wait for ever.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    else:
        accelerator.set_device(ranks.local_rank)
    timeout = max(default_pg_timeout, timedelta(seconds=2 * timeout_seconds))
    # DeepSpeed makes groups of its own without a timeout, for which torch looks here: 10 minutes with NCCL.
    distributed_c10d.default_pg_timeout = distributed_c10d.default_pg_nccl_timeout = timeout
    deepspeed.init_distributed(
        accelerator.communication_backend_name(), auto_mpi_discovery=False, verbose=False, timeout=timeout
    )
    return torch.device(accelerator.current_device_name())
