"""Time variants in turn, again and again, so that noise hits all of them alike."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

from launch.benchmark.layers.case import Case
from launch.benchmark.layers.ours import Hash, Variant


@dataclass
class Times:
    """Seconds of each repetition.

    passes: (forward, backward) by variant. plans: making the hash layer's. matmuls: one [T, d] @ [d, D].
    fills: new memory for the gradients of this rank's matrices, written once.
    """

    passes: dict[str, list[tuple[float, float]]]
    plans: list[float]
    matmuls: list[float]
    fills: list[float]


def time_in_turn(
    variants: dict[str, Variant], case: Case, *, repetitions: int, warmup: int, max_seconds: float
) -> Times:
    """Collective over all ranks. A variant that has taken max_seconds stops after its first repetition, or then."""
    times = Times({name: [] for name in variants}, [], [], [])
    names, spent = list(variants), dict.fromkeys(variants, 0.0)
    probes = _probes(variants["hash"], case)
    for repetition in range(-warmup, repetitions):
        # Another one begins each time, so that none always follows the same neighbour.
        turn = repetition % len(names)
        for name in names[turn:] + names[:turn]:
            if spent[name] > max_seconds and (repetition < 0 or times.passes[name]):
                continue
            seconds = time_passes(variants[name], case)
            spent[name] += _of_slowest_rank(sum(seconds), case)
            if repetition >= 0:
                times.passes[name].append(seconds)
        for seconds, probe in zip((times.plans, times.matmuls, times.fills), probes, strict=True):
            seconds += [_time(probe, case)] if repetition >= 0 else []
    return times


def _probes(layer: Hash, case: Case) -> tuple[Callable[[], object], ...]:
    """What Times.plans, .matmuls and .fills are the times of."""
    hidden_TD, matrices = case.hidden_BSD.flatten(0, 1), [case.weights[name] for name in ("up_proj", "down_proj")]
    return (
        layer.make_plans,
        lambda: hidden_TD @ matrices[0][0],
        lambda: [torch.empty_like(matrix).fill_(1) for matrix in matrices],
    )


def time_passes(variant: Variant, case: Case) -> tuple[float, float]:
    """Seconds of one forward and one backward pass; leaves no gradients behind. Collective over all ranks."""
    _wait_for_all(case)
    start, middle, end = run_passes(variant, case)
    variant.zero_grad(set_to_none=True)
    return _seconds_between(start, middle), _seconds_between(middle, end)


def run_passes(variant: Variant, case: Case) -> tuple:
    """One forward and one backward pass; the moments before, between and after them."""
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
    """Now: on a GPU an event in its queue, so that the host need not wait between the passes."""
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
    """The same number on every rank, for what all must decide alike."""
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
