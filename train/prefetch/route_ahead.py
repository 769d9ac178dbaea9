"""Route-ahead: batches and their plans, made on the host while the device computes the batch before.

Only fixed routes allow it: a plan follows from token ids, so the forward pass has nothing to ask. The sizes of all
sparse layers travel between the ranks of an expert-parallel group in one small collective per micro-batch, on a group
of its own. Batches for routers that learn are only read ahead.
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

from models.dispatch import Plan
from models.modeling_hash_gpt import HashGPTForCausalLM
from train.data.batches import Batch
from train.parallel.expert_parallel import ExpertParallelExperts, make_exchange
from train.prefetch.row_plans import LayerPlanner, RowPlanner

_SECONDS_TO_CLOSE = 10.0  # where a rank is lost meanwhile


def plan_ahead(model: HashGPTForCausalLM, batches: Iterator[Batch], *, device: torch.device) -> "BatchesAhead":
    """The batches, which come with row plans, with whole plans, one ahead.

    Collective over all ranks: it makes a process group.
    """
    return BatchesAhead(PlanExchange(model), batches, device)


def make_row_planner(model: HashGPTForCausalLM) -> RowPlanner | None:
    """What makes the row plans of this rank's model; None where routers learn, whose routes follow hidden states."""
    if model.config.router != "hash":
        return None
    layers = {
        index: LayerPlanner(
            copy.deepcopy(sparse_ffn.router).cpu(), sparse_ffn.experts.num_experts, sparse_ffn.experts.expert_ids
        )
        for index, sparse_ffn in model.transformer.sparse_ffns.items()
    }
    return RowPlanner(layers, none=model.config.hash_vocab_size)


class PlanExchange:
    """Completes row plans: tells the ranks of an expert-parallel group how many rows each sends to each expert."""

    def __init__(self, model: HashGPTForCausalLM):
        """Collective over all ranks."""
        self._group = _host_group(model)

    def complete(self, plans: dict[int, list[Plan]] | None) -> dict[int, list[Plan]] | None:
        """AllToAllSplits the sizes of all layers and hashes at once, [P, layers * hashes, e].

        Collective over the ranks of the expert-parallel group, which must come here in the same order of batches.
        """
        if self._group is None or plans is None:
            return plans
        num_ranks = self._group.size()
        flat = [plan for layer_plans in plans.values() for plan in layer_plans]
        send = torch.stack([torch.tensor(plan.tokens_per_expert).view(num_ranks, -1) for plan in flat], dim=1)
        receive = torch.empty_like(send)
        torch.distributed.all_to_all_single(receive, send, group=self._group)
        rank = self._group.rank()
        done = iter(
            replace(plan, exchange=make_exchange(send[:, i], receive[:, i], rank=rank)) for i, plan in enumerate(flat)
        )
        return {layer: [next(done) for _ in layer_plans] for layer, layer_plans in plans.items()}


class BatchesAhead(Iterator[Batch]):
    """Iterates over batches on `device` with plans; a thread makes the next one meanwhile.

    An error in the thread is raised by next(). The thread is a daemon: a run that fails does not wait for it.
    """

    def __init__(self, exchange: PlanExchange, batches: Iterator[Batch], device: torch.device):
        self._exchange, self._device = exchange, device
        self._ready: queue.Queue = queue.Queue(maxsize=1)
        self._seconds_waited, self._num_taken, self._last = 0.0, 0, math.inf
        # The thread alone refers to `batches`: it ends the processes that make them.
        self._thread = threading.Thread(target=self._work, args=(batches,), daemon=True, name="route-ahead")
        self._thread.start()

    def __next__(self) -> Batch:
        start = time.perf_counter()
        batch = self._ready.get()
        self._seconds_waited += time.perf_counter() - start
        if isinstance(batch, BaseException):
            self._ready.put(batch)  # whoever asks again gets the same answer
            raise batch
        self._num_taken += 1
        return batch

    def take_seconds_waited(self) -> float:
        """Seconds that next() has waited since this was last asked: what data and plans cost the training."""
        seconds, self._seconds_waited = self._seconds_waited, 0.0
        return seconds

    def close(self) -> None:
        """End the thread: Python would kill it at exit, and abort where it is in the midst of torch's code.

        Collective over all ranks, which have taken equally many batches: one more lies ready and one is in the making,
        so that no rank leaves the exchange of either.
        """
        self._last = self._num_taken + 2
        give_up = time.monotonic() + _SECONDS_TO_CLOSE
        while self._thread.is_alive() and time.monotonic() < give_up:
            with suppress(queue.Empty):
                self._ready.get(timeout=0.05)

    def _work(self, batches: Iterator[Batch]) -> None:
        try:
            for number, batch in enumerate(batches, start=1):
                plans = self._exchange.complete(batch.plans)
                self._ready.put(_to_device(replace(batch, plans=plans), self._device))
                if number >= self._last:
                    return
            self._ready.put(StopIteration())
        except BaseException as error:  # whatever it is, the training thread must not wait for a batch for ever
            self._ready.put(error)


def _to_device(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    plans = batch.plans
    if plans is not None:
        plans = {layer: [_plan_to(plan, device) for plan in layer_plans] for layer, layer_plans in plans.items()}
    return replace(batch.to(device), plans=plans)


def _plan_to(plan: Plan, device: torch.device) -> Plan:
    """Move the indices without waiting; the sizes stay on the host, where they are needed."""
    exchange = plan.exchange and replace(plan.exchange, local=_plan_to(plan.exchange.local, device))
    indices = {name: _move(getattr(plan, name), device) for name in ("order_N", "row_N", "ends_E")}
    return replace(plan, **indices, exchange=exchange)


def _move(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return tensor.pin_memory().to(device, non_blocking=True)


def _host_group(model: HashGPTForCausalLM):
    """This rank's expert-parallel ranks as a gloo group for the planning thread alone; None without such ranks."""
    sizes = {experts.ep_size for experts in model.modules() if isinstance(experts, ExpertParallelExperts)}
    if not sizes:
        return None
    (ep_size,) = sizes
    mine = None
    # Every rank takes part in making every group; DeepSpeed's groups are made of consecutive ranks.
    for first in range(0, torch.distributed.get_world_size(), ep_size):
        ranks = list(range(first, first + ep_size))
        group = torch.distributed.new_group(ranks, backend="gloo")
        mine = group if torch.distributed.get_rank() in ranks else mine
    return mine
