"""A dispatch plan sorts tokens by expert, ties by position; dispatch and combine are each other's inverse."""

import torch

from models.dispatch import combine, dispatch, make_plan, sum_pairs, take_pairs
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


TOKENS_TD = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
# Experts 0 and 1 take token 2, expert 1 takes token 0, and nobody takes token 1.
TWO_PAIRS_OF_ONE_TOKEN = Routes(
    torch.tensor([0, 1, 1]), token_N=torch.tensor([2, 2, 0]), weight_N=torch.tensor([0.5, 2.0, 3.0])
)


def test_a_token_becomes_one_pair_per_expert_that_takes_it():
    assert take_pairs(TOKENS_TD, TWO_PAIRS_OF_ONE_TOKEN).tolist() == [[5, 6], [5, 6], [1, 2]]
    assert take_pairs(TOKENS_TD, Routes(torch.tensor([0, 1, 1]))) is TOKENS_TD


def test_the_weighted_pairs_of_each_token_are_added_up():
    pairs_ND = torch.tensor([[2.0, 4.0], [1.0, 1.0], [10.0, 20.0]])
    outputs = [sum_pairs(pairs_ND, TWO_PAIRS_OF_ONE_TOKEN, TOKENS_TD, is_residual=flag) for flag in (False, True)]
    # token 2: 0.5 * [2, 4] + 2 * [1, 1]; token 0: 3 * [10, 20]
    assert outputs[0].tolist() == [[30, 60], [0, 0], [3, 4]]
    assert outputs[1].tolist() == [[31, 62], [3, 4], [8, 10]]


def test_pairs_that_are_tokens_stay_where_they_are():
    routes = Routes(torch.tensor([0, 1, 1]), weight_N=torch.tensor([0.5, 2.0, 3.0]))
    pairs_ND = torch.tensor([[2.0, 4.0], [1.0, 1.0], [10.0, 20.0]])
    outputs = [sum_pairs(pairs_ND, routes, TOKENS_TD, is_residual=flag) for flag in (False, True)]
    assert outputs[0].tolist() == [[1, 2], [2, 2], [30, 60]]
    assert outputs[1].tolist() == [[2, 4], [5, 6], [35, 66]]
