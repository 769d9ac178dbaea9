"""The loader: this rank's micro-batches with their local plans, made in the caller's thread or ahead by processes.

A micro-batch is a function of its number alone, so processes need no communication, and their order is that of one.
"""

import multiprocessing.resource_tracker
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.reduction import ForkingPickler

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from train.data.batches import Batch, PackedSequences, micro_batch_addresses
from train.data.mixture_order import MixtureOrder
from train.prefetch.local_plans import LocalPlanner
from train.processes.error_origin import is_ours
from train.processes.stop_request import SIGNALS

_BATCHES_AHEAD = 2  # per process
_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class MicroBatches(Dataset):
    """Micro-batch n of the run on this rank; step s begins with micro-batch s * (micro-batches per step).

    planner: None yields batches without plans.
    """

    sequences: PackedSequences
    order: MixtureOrder
    planner: LocalPlanner | None
    micro_batch_size: int
    rank: int
    world_size: int

    def __getitem__(self, number: int) -> Batch:
        batch = self.sequences.batch(self.addresses(number))
        if self.planner is None:
            return batch
        return replace(batch, plans=self.planner.plan(batch))

    def addresses(self, number: int) -> np.ndarray:
        """Addresses (part, sequence) of its sequences, int64 [micro_batch_size, 2]."""
        return micro_batch_addresses(
            self.order, number, micro_batch_size=self.micro_batch_size, rank=self.rank, world_size=self.world_size
        )


def read_ahead(micro_batches: MicroBatches, numbers: range, *, num_workers: int) -> Iterator[Batch]:
    """Yield the micro-batches `numbers` in order, the same for any num_workers; 0 makes them in this thread.

    If a worker process meets a ValueError of this project's code, such as a damaged token shard, it is raised here.
    Workers end with the iterator, and within seconds of this process, even if it is killed.
    """
    if num_workers == 0:
        yield from map(micro_batches.__getitem__, numbers)
        return
    for answer in _start_workers(micro_batches, numbers, num_workers):
        if isinstance(answer, ValueError):
            raise answer
        yield answer


def _start_workers(micro_batches: MicroBatches, numbers: range, num_workers: int) -> Iterator[Batch | ValueError]:
    loader = DataLoader(
        _Answers(micro_batches),
        sampler=numbers,
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=num_workers,
        prefetch_factor=_BATCHES_AHEAD,
        multiprocessing_context="spawn",  # a fork would copy the locks of DeepSpeed's and gloo's threads
        worker_init_fn=partial(_prepare_worker, os.getpid()),
        generator=torch.Generator(),  # its own: the global one belongs to dropout
    )
    multiprocessing.resource_tracker.ensure_running()  # here, since starting it unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # inherited: see _exit_with
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class _Answers(Dataset):
    """Micro-batches, or in place of one this project's ValueError: DataLoader would hide where it was raised."""

    micro_batches: MicroBatches

    def __getitem__(self, number: int) -> Batch | ValueError:
        try:
            return self.micro_batches[number]
        except ValueError as error:
            if not is_ours(error):
                raise
            return ValueError(str(error))


def _unchanged(batch: Batch) -> Batch:
    return batch


def _prepare_worker(trainer: int, _: int) -> None:
    """Send tensors by value, which needs neither /dev/shm, small in containers, nor a file descriptor per tensor."""
    ForkingPickler.register(torch.Tensor, _by_value)
    threading.Thread(target=_exit_with, args=(trainer,), daemon=True).start()


def _by_value(tensor: torch.Tensor) -> tuple:
    return torch.from_numpy, (tensor.numpy(),)


def _exit_with(trainer: int) -> None:
    """Exit when the training process requests it or is gone, even if this process is blocked.

    Schedulers and terminals send stop requests to all processes. Only the training process acts on them.
    """
    while os.getppid() == trainer:
        request = signal.sigtimedwait(SIGNALS, _SECONDS_BETWEEN_LOOKS)
        if request and request.si_pid == trainer:
            break
    os._exit(0)
