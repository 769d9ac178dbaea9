"""Learned routers against other implementations, and against the obvious loop."""

import pytest
import torch
from deepspeed.moe.sharded_moe import top1gating, top2gating
from scipy.optimize import linear_sum_assignment, linprog

from models.auction import EPSILON, balanced_assignment
from models.capped_choice import capped_choice
from models.learned_ffn import LEARNED_ROUTERS
from models.router_gshard import two_choices, two_routes
from models.router_losses import balance_loss, z_loss
from tests.models.tiny import tiny_config

TOKENS, EXPERTS = 40, 5
FACTORS = pytest.mark.parametrize("factor", [None, 0.6, 1.0, 1.25])


def make_router(name: str, *, num_experts=EXPERTS, **fields):
    torch.manual_seed(0)
    router = LEARNED_ROUTERS[name](tiny_config(num_experts=num_experts, router=name, **fields))
    for parameter in router.parameters():
        torch.nn.init.normal_(parameter)
    return router


def draw_logits(num_tokens=TOKENS, num_experts=EXPERTS, *, seed=0) -> torch.Tensor:
    return torch.randn(num_tokens, num_experts, generator=torch.Generator().manual_seed(seed))


def dense_weights(routes, num_tokens=TOKENS) -> torch.Tensor:
    """The weight of each expert for each token [T, E], 0 if it does not take the token."""
    token_N = torch.arange(num_tokens) if routes.token_N is None else routes.token_N
    weights_TE = torch.zeros(num_tokens, EXPERTS)
    weights_TE[token_N, routes.expert_N] = routes.weight_N.detach()
    return weights_TE


@FACTORS
def test_switch_is_deepspeeds_top1_gate(factor):
    router, tokens = (
        make_router("switch", capacity_factor=factor, router_aux_loss_coef=1.0).train(),
        torch.randn(TOKENS, 8),
    )
    routing = router.route(tokens, None)
    logits = router.gate(tokens)
    loss, combine_TEC, _, load_E = top1gating(logits, factor or EXPERTS, min_capacity=1, use_rts=False)
    torch.testing.assert_close(routing.auxiliary_loss, loss)
    theirs, ours = combine_TEC.sum(2).detach(), dense_weights(routing.routes)
    assert torch.equal((theirs > 0).sum(0), (ours > 0).sum(0))  # as many tokens for every expert
    assert routing.num_dropped == TOKENS - (theirs > 0).sum() and (factor != 0.6 or routing.num_dropped > 0)
    if factor is None:
        torch.testing.assert_close(ours, theirs)
    # DeepSpeed keeps any tokens of a full expert, Switch those that come first.
    for e in range(EXPERTS):
        wanted = (logits.argmax(1) == e).nonzero().flatten()
        assert (ours[:, e] > 0).nonzero().flatten().tolist() == wanted[: (ours[:, e] > 0).sum()].tolist()
    torch.testing.assert_close(ours[ours > 0], logits.softmax(1)[ours > 0].detach())


@FACTORS
def test_gshard_is_deepspeeds_top2_gate(factor):
    logits = draw_logits()
    routes = two_routes(logits.softmax(1), two_choices(logits, draw_second=False), capacity_factor=factor)
    loss, combine_TEC, *_ = top2gating(logits.clone(), factor or EXPERTS, 1, top2_2nd_expert_sampling=False)
    torch.testing.assert_close(dense_weights(routes), combine_TEC.sum(2))
    torch.testing.assert_close(balance_loss(logits.softmax(1), logits.argmax(1)), loss)


def test_gshard_draws_the_second_expert_by_its_probability():
    logits = draw_logits(1).expand(4000, -1)
    torch.manual_seed(0)
    first_T, second_T = two_choices(logits, draw_second=True)
    assert (first_T == logits[0].argmax()).all() and not (first_T == second_T).any()
    rest_E = logits[0].softmax(0).index_fill(0, first_T[:1], 0)
    drawn_E = torch.bincount(second_T, minlength=EXPERTS) / 4000
    torch.testing.assert_close(drawn_E, rest_E / rest_E.sum(), atol=0.03, rtol=0)


def test_the_balance_loss_is_one_if_the_load_is_even_and_e_if_one_expert_has_all():
    assert balance_loss(torch.full((6, 3), 1 / 3), torch.tensor([0, 1, 2, 0, 1, 2])) == pytest.approx(1.0)
    assert balance_loss(torch.tensor([[1.0, 0, 0]] * 6), torch.zeros(6, dtype=torch.int64)) == pytest.approx(3.0)
    assert z_loss(torch.zeros(2, 3)) == pytest.approx(torch.tensor(3.0).log().square().item())


@pytest.mark.parametrize("shape", [(40, 5), (64, 8), (41, 5), (3, 5)], ids=str)
@pytest.mark.parametrize("kind", ["even", "one expert wanted by all", "equal tokens"])
def test_the_auction_is_within_epsilon_of_scipys_optimum(shape, kind):
    scores = draw_logits(*shape)
    if kind == "one expert wanted by all":
        scores[:, 0] += 5
    elif kind == "equal tokens":
        scores = scores[:1].repeat(len(scores), 1)
    expert_T = balanced_assignment(scores)
    places = -(-shape[0] // shape[1])
    assert torch.bincount(expert_T, minlength=shape[1]).max() <= places
    rows, columns = linear_sum_assignment(scores.repeat_interleave(places, 1).numpy(), maximize=True)
    best = scores.numpy()[rows, columns // places].sum()
    found = scores.gather(1, expert_T.unsqueeze(1)).sum().item()
    epsilon = EPSILON * (scores.max() - min(scores.min(), 0)).item() if shape[0] % shape[1] else None
    epsilon = epsilon or EPSILON * (scores.max() - scores.min()).item()
    assert best - places * shape[1] * epsilon <= found <= best + 1e-4


def test_an_auction_of_whole_numbers_is_optimal_with_an_epsilon_below_one_over_their_number():
    for seed in range(10):
        scores = (draw_logits(24, 4, seed=seed) * 5).round()
        expert_T = balanced_assignment(scores, epsilon=1 / 25)
        rows, columns = linear_sum_assignment(scores.repeat_interleave(6, 1).numpy(), maximize=True)
        assert scores.gather(1, expert_T.unsqueeze(1)).sum() == scores.numpy()[rows, columns // 6].sum()


@pytest.mark.parametrize("scores", [torch.zeros(7, 3), torch.full((6, 3), torch.nan), torch.zeros(4, 1)])
def test_an_auction_ends_whatever_the_scores(scores):
    load = torch.bincount(balanced_assignment(scores), minlength=scores.shape[1])
    assert load.sum() == len(scores) and load.max() <= -(-len(scores) // scores.shape[1])


def test_base_balances_in_training_and_is_greedy_otherwise():
    router, tokens = make_router("base", placement="insert"), torch.randn(TOKENS, 8)
    logits = router.gate(tokens)
    greedy = router.eval().route(tokens, None).routes
    assert torch.equal(greedy.expert_N, logits.argmax(1))
    balanced = router.train().route(tokens, None).routes
    assert torch.bincount(balanced.expert_N).tolist() == [TOKENS // EXPERTS] * EXPERTS
    torch.testing.assert_close(balanced.weight_N, logits[range(TOKENS), balanced.expert_N].sigmoid())


@pytest.mark.parametrize("factor, wanted", [(None, 16), (2.0, 16), (1.0, 8), (0.5, 4)])
def test_expert_choice_is_a_loop_over_experts(factor, wanted):
    router, tokens = make_router("expert_choice", capacity_factor=factor).train(), torch.randn(TOKENS, 8)
    probs, expected = router.gate(tokens).softmax(1).detach(), torch.zeros(TOKENS, EXPERTS)
    for e in range(EXPERTS):
        for token in sorted(range(TOKENS), key=lambda t: -probs[t, e])[:wanted]:  # noqa: B023
            expected[token, e] = probs[token, e]
    routing = router.route(tokens, None)
    assert torch.equal(dense_weights(routing.routes), expected)
    assert routing.num_dropped == (expected.sum(1) == 0).sum()


@pytest.mark.parametrize("cap", [2, 3])
@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_capped_choices_are_worth_nearly_those_of_the_linear_program(cap, scale):
    num_tokens, num_experts, wanted = 64, 8, 16
    affinity_ET = (draw_logits(num_tokens, num_experts) * scale).softmax(1).T.contiguous()
    router = make_router("expert_choice", num_experts=num_experts, expert_choice_cap=cap)
    chosen_ET = router._choose(affinity_ET)
    assert chosen_ET.sum(0).max() <= cap  # exactly
    assert chosen_ET.sum(1).max() <= wanted and chosen_ET.sum() >= 0.9 * wanted * num_experts
    rows, columns = (
        torch.eye(num_experts).repeat_interleave(num_tokens, 1),
        torch.eye(num_tokens).repeat(1, num_experts),
    )
    best = linprog(
        -affinity_ET.flatten().numpy(), A_ub=columns.numpy(), b_ub=[cap] * num_tokens, A_eq=rows.numpy(),
        b_eq=[wanted] * num_experts, bounds=(0, 1),
    )  # fmt: skip
    assert 0.96 * -best.fun <= affinity_ET[chosen_ET].sum() <= -best.fun + 1e-4


def test_a_capped_choice_meets_its_conditions_nearly():
    affinity_ET = draw_logits(64, 8).softmax(1).T
    wish_ET = capped_choice(affinity_ET, tokens_per_expert=16, cap=2)
    assert wish_ET.max() <= 1 + 1e-5 and wish_ET.sum(0).max() < 2.2
    torch.testing.assert_close(wish_ET.sum(1), torch.full((8,), 16.0), atol=2, rtol=0)
