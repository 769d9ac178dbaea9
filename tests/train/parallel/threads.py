"""Ranks that are threads of one process, so that tests of a few tensors need no process group."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import deepspeed.comm as dist
from deepspeed.utils import groups


@dataclass(frozen=True)
class RankGroup:
    """A group as one rank sees it: it stands for the process group in calls of collectives."""

    rank: int
    sent: list  # the parts that each rank sends, by receiving rank
    barrier: threading.Barrier


def make_groups(num_ranks: int, monkeypatch) -> list[RankGroup]:
    """The group of each rank, which DeepSpeed's all-to-all accepts until the test ends."""
    monkeypatch.setattr(dist, "all_to_all_single", _all_to_all_single)
    sent, barrier = [None] * num_ranks, threading.Barrier(num_ranks)
    return [RankGroup(rank, sent, barrier) for rank in range(num_ranks)]


def become(group: RankGroup, monkeypatch) -> None:
    """Let DeepSpeed name this group as that of the experts, until the next call."""
    monkeypatch.setattr(groups, "_get_expert_parallel_group", lambda name: group)
    monkeypatch.setattr(groups, "_get_expert_parallel_rank", lambda name: group.rank)


def run_on_threads(function: Callable, per_rank: list[RankGroup]) -> list:
    """function(rank) on a thread per rank: the results by rank. A rank that fails ends the others."""

    def run(group: RankGroup):
        try:
            return function(group.rank)
        except BaseException:
            group.barrier.abort()
            raise

    with ThreadPoolExecutor(len(per_rank)) as pool:
        return list(pool.map(run, per_rank))


def _all_to_all_single(output, tensor, output_splits=None, input_splits=None, *, group: RankGroup) -> None:
    """As DeepSpeed's: without splits, every rank sends and receives equally many rows."""
    equal = [len(tensor) // len(group.sent)] * len(group.sent)
    group.sent[group.rank] = tensor.split(input_splits or equal)
    group.barrier.wait(timeout=30)
    for part, parts in zip(output.split(output_splits or equal), group.sent, strict=True):
        part.copy_(parts[group.rank])
    group.barrier.wait(timeout=30)  # nobody sends again before all have received
