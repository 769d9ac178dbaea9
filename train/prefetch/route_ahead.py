"""Route-ahead: batches and their dispatch plans, made on the host while the device computes the previous batch.

Three makers of plans exist, and all call models/dispatch.py's make_plan:
- Training makes local plans from copies of the hash routers (local_plans.py), in the thread below or in loader
  processes. This file adds the splits between ranks, for all sparse layers in one small collective per micro-batch, on
  a process group of its own. The forward pass waits for nothing.
- A forward pass without plans, as in validation and generation, has them made by HashGPTModel.plan().
- A layer whose router learns plans in its own forward pass (models/learned_ffn.py), since its routes depend on hidden
  states: batches for it are only read ahead.
With expert parallelism the last two go through ExpertParallelExperts.plan(), a collective for which the device waits.
"""

import copy
import math
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import torch
import torch.distributed

from models.dispatch import DispatchPlan
from models.modeling_hash_gpt import HashGPTForCausalLM
from train.data.batches import Batch
from train.parallel.all_to_all import make_splits
from train.parallel.expert_parallel import ExpertParallelExperts
from train.prefetch.local_plans import LayerPlanner, LocalPlanner

_SECONDS_TO_CLOSE = 10.0  # if a rank is lost meanwhile


def plan_ahead(model: HashGPTForCausalLM, batches: Iterator[Batch], *, device: torch.device) -> "BatchesAhead":
    """The batches, which come with local plans, on `device` with complete plans, one ahead.

    Collective over all ranks: it creates a process group.
    """
    return BatchesAhead(PlanCompleter(model), batches, device)


def make_local_planner(model: HashGPTForCausalLM) -> LocalPlanner | None:
    """The maker of local plans for this rank's model; None if its routers learn."""
    if model.config.router != "hash":
        return None
    layers = {
        index: LayerPlanner(
            copy.deepcopy(sparse_ffn.router).cpu(), sparse_ffn.experts.num_experts, sparse_ffn.experts.expert_ids
        )
        for index, sparse_ffn in model.transformer.sparse_ffns.items()
    }
    return LocalPlanner(layers, none=model.config.hash_vocab_size)


class PlanCompleter:
    """Adds splits to local plans: ranks that share experts learn how many tokens each sends to each expert."""

    def __init__(self, model: HashGPTForCausalLM):
        """Collective over all ranks."""
        self._group = _host_group(model)

    def complete(self, plans: dict[int, list[DispatchPlan]] | None) -> dict[int, list[DispatchPlan]] | None:
        """The plans with splits, from one all-to-all of tokens per expert, int64 [P, layers * hashes, e].

        Collective over the ranks of the expert-parallel group, which must call it in the same order of batches.
        """
        if self._group is None or plans is None:
            return plans
        num_ranks = self._group.size()
        flat = [plan for layer_plans in plans.values() for plan in layer_plans]
        send = torch.stack([torch.tensor(plan.tokens_per_expert).view(num_ranks, -1) for plan in flat], dim=1)
        receive = torch.empty_like(send)
        torch.distributed.all_to_all_single(receive, send, group=self._group)
        rank = self._group.rank()
        complete = iter(
            replace(plan, splits=make_splits(send[:, i], receive[:, i], rank=rank)) for i, plan in enumerate(flat)
        )
        return {layer: [next(complete) for _ in layer_plans] for layer, layer_plans in plans.items()}


class BatchesAhead(Iterator[Batch]):
    """Iterates over batches on `device` with complete plans; a thread makes the next one meanwhile.

    next() raises an error of the thread. The thread is a daemon: a run that fails does not wait for it.
    """

    def __init__(self, completer: PlanCompleter, batches: Iterator[Batch], device: torch.device):
        self._completer, self._device = completer, device
        self._ready: queue.Queue = queue.Queue(maxsize=1)
        self._seconds_waited, self._num_taken, self._last = 0.0, 0, math.inf
        # Only the thread refers to `batches`, so that it ends the processes that make them.
        self._thread = threading.Thread(target=self._work, args=(batches,), daemon=True, name="route-ahead")
        self._thread.start()

    def __next__(self) -> Batch:
        start = time.perf_counter()
        batch = self._ready.get()
        self._seconds_waited += time.perf_counter() - start
        if isinstance(batch, BaseException):
            self._ready.put(batch)  # a further call raises the same
            raise batch
        self._num_taken += 1
        return batch

    def take_seconds_waited(self) -> float:
        """Seconds that next() has waited since this was last called: the cost of data and plans to training."""
        seconds, self._seconds_waited = self._seconds_waited, 0.0
        return seconds

    def close(self) -> None:
        """End the thread: Python would kill it at exit, and abort if it is inside torch's code.

        Collective over all ranks, which have taken equal numbers of batches: one is ready and one is being made, so
        every rank completes the plans of both.
        """
        self._last = self._num_taken + 2
        give_up = time.monotonic() + _SECONDS_TO_CLOSE
        while self._thread.is_alive() and time.monotonic() < give_up:
            with suppress(queue.Empty):
                self._ready.get(timeout=0.05)

    def _work(self, batches: Iterator[Batch]) -> None:
        try:
            for number, batch in enumerate(batches, start=1):
                plans = self._completer.complete(batch.plans)
                self._ready.put(_to_device(replace(batch, plans=plans), self._device))
                if number >= self._last:
                    return
            self._ready.put(StopIteration())
        except BaseException as error:  # of any kind: the training thread must not wait for a batch forever
            self._ready.put(error)


def _to_device(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    plans = batch.plans
    if plans is not None:
        plans = {layer: [_plan_to(plan, device) for plan in layer_plans] for layer, layer_plans in plans.items()}
    tensors = [None if tensor is None else _move(tensor, device) for tensor in batch.tensors]
    return Batch(*tensors, plans=plans)


def _plan_to(plan: DispatchPlan, device: torch.device) -> DispatchPlan:
    """Move the indices without waiting; the counts stay on the host, where they are needed."""
    splits = plan.splits and replace(plan.splits, arrivals=_plan_to(plan.splits.arrivals, device))
    indices = {name: _move(getattr(plan, name), device) for name in ("order_N", "place_N", "ends_E")}
    return replace(plan, **indices, splits=splits)


def _move(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy from pinned memory: from pageable memory, a copy of more than 64 KB waits whatever non_blocking says."""
    return tensor.pin_memory().to(device, non_blocking=True)


def _host_group(model: HashGPTForCausalLM):
    """The ranks that share experts with this one, as a gloo group for the thread alone; None without such ranks."""
    sizes = {experts.ep_size for experts in model.modules() if isinstance(experts, ExpertParallelExperts)}
    if not sizes:
        return None
    (ep_size,) = sizes
    mine = None
    # Every rank takes part in the creation of every group; DeepSpeed's groups are consecutive ranks. On GPUs, torch has
    # the ranks outside a gloo group split NCCL's communicator, and all ranks must do so equally often. They do, because
    # the groups share out the world: each rank is inside one group and outside all others.
    for first in range(0, torch.distributed.get_world_size(), ep_size):
        ranks = list(range(first, first + ep_size))
        group = torch.distributed.new_group(ranks, backend="gloo")
        mine = group if torch.distributed.get_rank() in ranks else mine
    return mine
