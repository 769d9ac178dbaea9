"""Code that the tests of route-ahead run on every rank."""

import torch
import torch.distributed

from tests.distributed.training import batch, make_model
from train.prefetch.route_ahead import PlanCompleter, make_local_planner


def compare_plans(hashes: list[str]) -> dict[str, bool]:
    """Whether the host's plans equal those of the layers, by name of the hash."""
    return {name: _plans_are_equal(make_model(name, ep_size=2)) for name in hashes}


def _plans_are_equal(model) -> bool:
    whole = batch(torch.distributed.get_rank())
    expected = model.transformer.plan(whole.input_ids, **whole.known)
    found = PlanCompleter(model).complete(make_local_planner(model).plan(whole))
    return all(
        a.tokens_per_expert == b.tokens_per_expert
        and torch.equal(a.order_N, b.order_N)
        and torch.equal(a.splits.arrivals.order_N, b.splits.arrivals.order_N)
        and (a.splits.input_splits, a.splits.output_splits) == (b.splits.input_splits, b.splits.output_splits)
        and a.splits.arrivals.tokens_per_expert == b.splits.arrivals.tokens_per_expert
        for layer in expected
        for a, b in zip(expected[layer], found[layer], strict=True)
    )


def count_collectives() -> dict[str, int]:
    """All-to-alls of each phase of one micro-batch."""
    model, whole = make_model(ep_size=2), batch(0)
    planner, completer, counts = make_local_planner(model), PlanCompleter(model), {}
    with _counting(counts, "planning"):
        plans = completer.complete(planner.plan(whole))
    with _counting(counts, "forward"):
        logits = model(whole.input_ids, plans=plans).logits
    with _counting(counts, "backward"):
        logits.sum().backward()
    return counts


class _counting:
    """Counts calls of torch.distributed.all_to_all_single, which DeepSpeed's wrapper ends in."""

    def __init__(self, counts: dict[str, int], phase: str):
        self.counts, self.phase = counts, phase

    def __enter__(self):
        self.original = torch.distributed.all_to_all_single
        self.counts[self.phase] = 0

        def counted(*args, **kwargs):
            self.counts[self.phase] += 1
            return self.original(*args, **kwargs)

        torch.distributed.all_to_all_single = counted

    def __exit__(self, *_):
        torch.distributed.all_to_all_single = self.original
