"""Batches made ahead arrive in order, and an error in the making reaches the training loop."""

import itertools

import pytest
import torch

from tests.distributed.training import batch, make_model
from train.route_ahead import HostPlanner, plan_ahead

CPU = torch.device("cpu")


def test_batches_arrive_in_order_with_the_plans_of_the_model():
    model = make_model("MultiHash 2")
    ahead = list(plan_ahead(model, map(batch, range(3)), device=CPU))
    assert len(ahead) == 3
    for step, found in enumerate(ahead):
        assert torch.equal(found.input_ids, batch(step).input_ids)
        expected = model.transformer.plan(found.input_ids, **found.known)
        assert all(torch.equal(p.order_N, e.order_N) for p, e in zip(found.plans[0], expected[0], strict=True))


def test_planning_runs_no_hook_of_the_model():
    model, calls = make_model("MultiHash 2"), []
    for module in model.modules():
        module.register_forward_pre_hook(lambda module, _: calls.append(module))
    HostPlanner(model).plan(batch(0))
    assert calls == []


def test_the_end_stays_the_end():
    batches = plan_ahead(make_model(), iter([batch(0)]), device=CPU)
    assert len(list(itertools.islice(batches, 5))) == 1
    assert next(batches, None) is None


def test_an_error_in_the_thread_is_raised_where_batches_are_used():
    def damaged():
        yield batch(0)
        raise ValueError("shard_00001.bin is damaged")

    batches = plan_ahead(make_model(), damaged(), device=CPU)
    next(batches)
    with pytest.raises(ValueError, match="shard_00001.bin is damaged"):
        next(batches)


def test_the_time_spent_waiting_is_told_once():
    batches = plan_ahead(make_model(), map(batch, range(1)), device=CPU)
    next(batches)
    assert batches.take_seconds_waited() > 0
    assert batches.take_seconds_waited() == 0
