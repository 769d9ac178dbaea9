"""Batches made ahead arrive in order, and an error of their thread reaches the training loop."""

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from tests.distributed.training import batch, make_model
from train.data.batches import Batch
from train.prefetch.route_ahead import make_local_planner, plan_ahead

CPU = torch.device("cpu")


def planned(model, steps: int) -> Iterator[Batch]:
    """Batches with local plans."""
    planner = make_local_planner(model)
    return (replace(whole, plans=planner.plan(whole)) for whole in map(batch, range(steps)))


def test_batches_arrive_in_order_with_the_plans_of_the_model():
    model = make_model("MultiHash 2")
    ahead = list(plan_ahead(model, planned(model, 3), device=CPU))
    assert len(ahead) == 3
    for step, found in enumerate(ahead):
        assert torch.equal(found.input_ids, batch(step).input_ids)
        expected = model.transformer.plan(found.input_ids, **found.known)
        assert all(torch.equal(p.order_N, e.order_N) for p, e in zip(found.plans[0], expected[0], strict=True))


def test_batches_for_a_learned_router_come_without_plans():
    model = make_model("switch")
    assert make_local_planner(model) is None
    [found] = plan_ahead(model, iter([batch(0)]), device=CPU)
    assert found.plans is None and torch.equal(found.input_ids, batch(0).input_ids)


def test_every_tensor_of_a_batch_is_copied_from_pinned_memory(monkeypatch):
    moved = []
    monkeypatch.setattr("train.prefetch.route_ahead._move", lambda tensor, device: moved.append(tensor) or tensor)
    model = make_model("MultiHash 2")
    [found] = plan_ahead(model, planned(model, 1), device=torch.device("meta"))
    tensors = [tensor for tensor in found.tensors if tensor is not None]
    plans = [plan for layer in found.plans.values() for plan in layer]
    tensors += [tensor for plan in plans for tensor in (plan.order_N, plan.place_N, plan.ends_E)]
    assert {id(tensor) for tensor in tensors} == {id(tensor) for tensor in moved}


def test_planning_runs_no_hook_of_the_model():
    model, calls = make_model("MultiHash 2"), []
    for module in model.modules():
        module.register_forward_pre_hook(lambda module, _: calls.append(module))
    make_local_planner(model).plan(batch(0))
    assert calls == []


def test_the_end_stays_the_end():
    model = make_model()
    batches = plan_ahead(model, planned(model, 1), device=CPU)
    assert len(list(itertools.islice(batches, 5))) == 1
    assert next(batches, None) is None


def test_an_error_in_the_thread_is_raised_where_batches_are_used():
    model = make_model()

    def damaged():
        yield from planned(model, 1)
        raise ValueError("shard_00001.bin is damaged")

    batches = plan_ahead(model, damaged(), device=CPU)
    next(batches)
    with pytest.raises(ValueError, match="shard_00001.bin is damaged"):
        next(batches)


def test_the_time_spent_waiting_is_reported_once():
    model = make_model()
    batches = plan_ahead(model, planned(model, 1), device=CPU)
    next(batches)
    assert batches.take_seconds_waited() > 0
    assert batches.take_seconds_waited() == 0


def test_a_closed_thread_has_made_two_batches_more_than_were_taken():
    """All ranks complete these two: a rank that skipped an all-to-all would let the others wait in it."""
    model, made = make_model(), []

    def endless():
        while True:
            made.extend(planned(model, 1))
            yield made[-1]

    batches = plan_ahead(model, endless(), device=CPU)
    next(batches)
    batches.close()
    assert len(made) == 3
    assert "route-ahead" not in {thread.name for thread in threading.enumerate()}
