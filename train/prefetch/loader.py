"""The loader: this rank's micro-batches with local plans, made in the caller's thread or by processes ahead of it.

A micro-batch is a function of its number, so that processes need not know of each other, and the order is that of one.
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

from train.data.batches import Batch, PackedSequences, micro_batch_indices
from train.data.mixture_order import MixtureOrder
from train.prefetch.local_plans import LocalPlanner
from train.processes.error_origin import is_ours
from train.processes.stop_request import SIGNALS

_BATCHES_AHEAD = 2  # per process
_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class MicroBatches(Dataset):
    """Micro-batch n of the run on this rank; step s has those from s * (micro-batches per step) on.

    planner: None leaves the batches without plans.
    """

    sequences: PackedSequences
    order: MixtureOrder
    planner: LocalPlanner | None
    micro_batch_size: int
    rank: int
    world_size: int

    def __getitem__(self, number: int) -> Batch:
        batch = self.sequences.batch(self.indices(number))
        if self.planner is None:
            return batch
        return replace(batch, plans=self.planner.plan(batch))

    def indices(self, number: int) -> np.ndarray:
        """Its sequences, int64 [micro_batch_size]."""
        return micro_batch_indices(
            self.order, number, micro_batch_size=self.micro_batch_size, rank=self.rank, world_size=self.world_size
        )


def read_ahead(micro_batches: MicroBatches, numbers: range, *, num_workers: int) -> Iterator[Batch]:
    """Yield the micro-batches of `numbers` in order, the same however many processes make them; 0: none.

    ValueError of this project's code, such as a damaged token shard, is raised here as it was raised in a process.
    Processes end with the iterator, and within seconds of this process, however it ends.
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
        collate_fn=_as_it_is,
        num_workers=num_workers,
        prefetch_factor=_BATCHES_AHEAD,
        multiprocessing_context="spawn",  # a fork would copy the locks of DeepSpeed's and gloo's threads
        worker_init_fn=partial(_prepare_worker, os.getpid()),
        generator=torch.Generator(),  # its own: the global one belongs to dropout
    )
    multiprocessing.resource_tracker.ensure_running()  # here, since starting it unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # inherited: see _leave_with
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class _Answers(Dataset):
    """Micro-batches, or this project's ValueError instead of one: DataLoader would hide where it was raised."""

    micro_batches: MicroBatches

    def __getitem__(self, number: int) -> Batch | ValueError:
        try:
            return self.micro_batches[number]
        except ValueError as error:
            if not is_ours(error):
                raise
            return ValueError(str(error))


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _prepare_worker(trainer: int, _: int) -> None:
    """Send tensors by value: so they need neither /dev/shm, which is small in containers, nor a descriptor each."""
    ForkingPickler.register(torch.Tensor, _by_value)
    threading.Thread(target=_leave_with, args=(trainer,), daemon=True).start()


def _by_value(tensor: torch.Tensor) -> tuple:
    return torch.from_numpy, (tensor.numpy(),)


def _leave_with(trainer: int) -> None:
    """End this process when the training process says so, or is gone, whatever this one is waiting for.

    Schedulers and terminals send requests to stop to all processes: the training process answers them, not this one.
    """
    while os.getppid() == trainer:
        request = signal.sigtimedwait(SIGNALS, _SECONDS_BETWEEN_LOOKS)
        if request and request.si_pid == trainer:
            break
    os._exit(0)
