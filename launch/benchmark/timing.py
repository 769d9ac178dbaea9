"""Time variants in rotation, repetition by repetition, so that noise affects all of them alike."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from launch.benchmark.layers.case import Case
from launch.benchmark.layers.ours import Hash, Variant


@dataclass
class Times:
    """Seconds of each repetition."""

    passes: dict[str, list[tuple[float, float]]]  # (forward, backward) by variant
    planning: list[float] = field(default_factory=list)  # making the hash layer's dispatch plans
    matmul: list[float] = field(default_factory=list)  # one [T, d] @ [d, D]
    fill: list[float] = field(
        default_factory=list
    )  # new memory for the gradients of this rank's matrices, written once


def time_variants(
    variants: dict[str, Variant], case: Case, *, repetitions: int, warmup: int, max_seconds: float
) -> Times:
    """Collective over all ranks. A variant stops after max_seconds, but not before its first repetition."""
    times = Times({name: [] for name in variants})
    names, spent = list(variants), dict.fromkeys(variants, 0.0)
    probes = _probes(variants["hash"], case)
    for repetition in range(-warmup, repetitions):
        # Another variant starts each time, so that none always follows the same neighbour.
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            if spent[name] > max_seconds and (repetition < 0 or times.passes[name]):
                continue
            forward_backward = time_passes(variants[name], case)
            spent[name] += _of_slowest_rank(sum(forward_backward), case)
            if repetition >= 0:
                times.passes[name].append(forward_backward)
        for name, probe in probes.items():
            elapsed = _time(probe, case)
            if repetition >= 0:
                getattr(times, name).append(elapsed)
    return times


def _probes(layer: Hash, case: Case) -> dict[str, Callable[[], object]]:
    """The operations that Times.planning, .matmul and .fill measure."""
    hidden_TD, matrices = case.hidden_BSD.flatten(0, 1), [case.weights[name] for name in ("up_proj", "down_proj")]
    return {
        "planning": layer.make_plans,
        "matmul": lambda: hidden_TD @ matrices[0][0],
        "fill": lambda: [torch.empty_like(matrix).fill_(1) for matrix in matrices],
    }


def time_passes(variant: Variant, case: Case) -> tuple[float, float]:
    """Seconds of one forward and one backward pass, without leaving gradients behind. Collective over all ranks."""
    _wait_for_all(case)
    start, middle, end = run_passes(variant, case)
    variant.zero_grad(set_to_none=True)
    return _seconds_between(start, middle), _seconds_between(middle, end)


def run_passes(variant: Variant, case: Case) -> tuple:
    """One forward and one backward pass; returns the moments before, between and after them."""
    hidden_BSD = case.hidden_BSD.detach().requires_grad_()
    start = _moment(case)
    outputs_BSD = variant(hidden_BSD)
    middle = _moment(case)
    outputs_BSD.backward(case.grad_BSD)
    return start, middle, _moment(case)


def _time(run: Callable[[], object], case: Case) -> float:
    _wait_for_all(case)
    start = _moment(case)
    run()
    return _seconds_between(start, _moment(case))


def _moment(case: Case):
    """Now. On a GPU this is an event in its queue, so that the host need not wait between the passes."""
    if case.hidden_BSD.device.type == "cpu":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds_between(start, end) -> float:
    if isinstance(start, float):
        return end - start
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def _of_slowest_rank(seconds: float, case: Case) -> float:
    """The same number on every rank, so that all ranks make the same decision."""
    if case.ep_size == 1:
        return seconds
    slowest = torch.tensor(seconds, device=case.hidden_BSD.device)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    return slowest.item()


def _wait_for_all(case: Case) -> None:
    if case.ep_size > 1:
        dist.barrier()
    if case.hidden_BSD.device.type == "cuda":
        torch.cuda.synchronize()
