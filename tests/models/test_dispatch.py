"""A dispatch plan sorts tokens by expert, ties by position; dispatch and combine are each other's inverse."""

import torch

from models.dispatch import combine, dispatch, make_plan
from models.routes import Routes

EXPERTS = torch.randint(0, 4, (500,), generator=torch.Generator().manual_seed(0))


def test_tokens_are_sorted_by_expert_and_ties_by_position():
    plan = make_plan(Routes(EXPERTS), 5)
    expected = sorted(range(500), key=lambda token: (EXPERTS[token].item(), token))
    assert plan.order_N.tolist() == expected
    counts = [sum(EXPERTS == expert).item() for expert in range(5)]
    assert plan.tokens_per_expert == counts and counts[4] == 0
    assert (
        plan.ends_E.tolist() == [sum(counts[: expert + 1]) for expert in range(5)] and plan.ends_E.dtype == torch.int32
    )


def test_the_tokens_of_the_first_experts_come_first():
    order = make_plan(Routes(torch.tensor([0, 3, 1, 2, 1, 0])), 4, first=range(1, 2)).order_N
    assert order.tolist() == [2, 4, 0, 5, 3, 1]


def test_combine_is_the_inverse_of_dispatch_and_so_are_their_gradients():
    plan = make_plan(Routes(EXPERTS), 4)
    hidden_TD = torch.randn(500, 3, requires_grad=True)
    dispatched = dispatch(hidden_TD, plan)
    assert torch.equal(dispatched, hidden_TD[plan.order_N])
    assert torch.equal(combine(dispatched, plan), hidden_TD)
    weight_TD = torch.randn(500, 3)
    (weight_TD * dispatched).sum().backward()
    assert torch.equal(hidden_TD.grad[plan.order_N], weight_TD)
