"""Both implementations of the experts give the numbers of plain autograd, idle experts included."""

import pytest
import torch
from transformers.activations import ACT2FN

from models.dispatch import DispatchPlan, make_plan
from models.grouped import ExpertWeights, GroupedMMFeedForward, LoopFeedForward, grouped_feed_forward, per_expert
from models.routes import Routes

WAYS = [LoopFeedForward, GroupedMMFeedForward]
ACT = ACT2FN["gelu_new"].forward


def make_inputs(dtype: torch.dtype, *, experts_of_tokens: list[int], num_experts: int) -> tuple[DispatchPlan, list]:
    """A plan, and the tokens and stacked weights as leaves; sizes are multiples of 8, as grouped_mm requires."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(len(experts_of_tokens), 8), (num_experts, 8, 16), (num_experts, 16), (num_experts, 16, 8)]
    leaves = [torch.randn(shape, generator=generator).to(dtype) for shape in (*shapes, (num_experts, 8))]
    plan = make_plan(Routes(torch.tensor(experts_of_tokens, dtype=torch.int64)), num_experts)
    return plan, [leaf.requires_grad_() for leaf in leaves]


def results(function, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    """The outputs of function(*leaves) and the gradients of the leaves."""
    outputs = function(*leaves)
    grads = torch.autograd.grad(outputs, leaves, torch.linspace(-1, 1, outputs.numel()).view_as(outputs).to(outputs))
    return [outputs, *grads]


def plain(plan: DispatchPlan):
    def one_expert(run, up, up_bias, down, down_bias):
        return ACT(run @ up + up_bias) @ down + down_bias

    return lambda tokens, *weights: per_expert(one_expert, tokens, plan, *weights)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_outputs_and_gradients_are_those_of_plain_autograd(way, dtype, tolerance):
    plan, leaves = make_inputs(dtype, experts_of_tokens=[2, 0, 2, 2, 0, 4, 2], num_experts=5)
    found = results(lambda tokens, *weights: way.apply(tokens, plan, ACT, *weights), leaves)
    for a, b in zip(found, results(plain(plan), leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("way", WAYS)
def test_the_gradients_of_idle_experts_are_zero(way):
    plan, leaves = make_inputs(torch.float32, experts_of_tokens=[2, 0, 2], num_experts=4)
    _, _, *grads = results(lambda tokens, *weights: way.apply(tokens, plan, ACT, *weights), leaves)
    for grad in grads:
        assert [bool(grad[e].any()) for e in range(4)] == [True, False, True, False]


def test_the_gradients_of_idle_experts_are_zero_although_the_kernel_leaves_them_unwritten(monkeypatch):
    def multiply(a, b, *, offs):
        product = grouped_mm(a, b, offs=offs)
        return product.index_fill(0, torch.tensor([1, 3]), torch.nan) if product.dim() == 3 else product

    grouped_mm = torch.nn.functional.grouped_mm
    monkeypatch.setattr("models.grouped.functional.grouped_mm", multiply)
    plan, leaves = make_inputs(torch.float32, experts_of_tokens=[2, 0, 2], num_experts=4)
    _, _, *grads = results(lambda tokens, *weights: GroupedMMFeedForward.apply(tokens, plan, ACT, *weights), leaves)
    assert not any(grad[[1, 3]].any() or grad.isnan().any() for grad in grads)


def test_a_device_without_tokens_gets_zero_gradients():
    plan, leaves = make_inputs(torch.bfloat16, experts_of_tokens=[], num_experts=2)
    outputs, *grads = results(
        lambda tokens, *weights: grouped_feed_forward(tokens, plan, ExpertWeights(*weights), act=ACT), leaves
    )
    assert outputs.shape == (0, 8) and not any(grad.any() for grad in grads)


def test_tokens_of_the_experts_named_first_come_first():
    plan = make_plan(Routes(torch.tensor([0, 2, 1, 2, 0])), 3, first=range(1, 3))
    assert plan.order_N.tolist() == [2, 1, 3, 0, 4]
    assert (plan.tokens_per_expert, plan.ends_E.tolist()) == ([2, 1, 2], [2, 3, 5])
