"""Code that the test of slow ranks runs on every rank."""

import time
from pathlib import Path

import deepspeed.comm as dist
import torch

from train.faults.watchdog import Watchdog


def wait_for_rank_1(folder: str) -> float:
    """Run steps in which rank 1 works longest, and return this rank's share of waiting."""
    dog = Watchdog(Path(folder), rank=dist.get_rank(), world_size=2, timeout_seconds=0.8, fail=print)
    dog.start()
    for step in range(40):
        dog.at(step)
        time.sleep(0.1 if dist.get_rank() == 1 else 0.001)
        dist.all_reduce(torch.ones(1))
    dog.stop()
    return dog.take_waiting_share()
