"""Time variants in turn, again and again, so that noise hits all of them alike."""

import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from train.benchmark_case import Case
from train.benchmark_variants import Variant


def time_in_turn(
    variants: dict[str, Variant], case: Case, *, repetitions: int, warmup: int
) -> tuple[dict[str, list[tuple[float, float]]], list[float], list[float]]:
    """Seconds of each repetition: (forward, backward) by variant, making plans, and one matmul [T, d] @ [d, D].

    Collective over all ranks.
    """
    passes, plans, matmuls = {name: [] for name in variants}, [], []
    tokens_TD, weight = case.hidden_BSD.flatten(0, 1), case.weights["up_proj"][0]
    names = list(variants)
    for repetition in range(warmup + repetitions):
        # Another one begins each time, so that none always follows the same neighbour.
        turn = repetition % len(names)
        for name in names[turn:] + names[:turn]:
            passes[name].append(time_passes(variants[name], case))
        plans.append(_time(variants["hash"].make_plans, case))
        matmuls.append(_time(lambda: tokens_TD @ weight, case))
    return {name: values[warmup:] for name, values in passes.items()}, plans[warmup:], matmuls[warmup:]


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


def _wait_for_all(case: Case) -> None:
    if case.ep_size > 1:
        dist.barrier()
    if case.hidden_BSD.device.type == "cuda":
        torch.cuda.synchronize()
