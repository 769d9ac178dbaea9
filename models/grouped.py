"""Grouped computation: each expert's weights on its own run of tokens, with gradients written where they belong."""

from typing import NamedTuple

import torch
from torch.nn import functional

from .dispatch import DispatchPlan, combine, dispatch

# Hopper and data-centre Blackwell. Elsewhere grouped_mm copies the ends of the runs to the host: 8 waits per layer and
# pass for what the loop already knows.
_GROUPED_MM_DEVICES = ((9, 0), (10, 0))


class ExpertWeights(NamedTuple):
    """Two matrices with biases, x -> act(x @ up + up_bias) @ down + down_bias, or their gradients.

    For one expert: [D, H], [H], [H, D] and [D], from hidden size D to intermediate size H and back. For all experts:
    the same with a first dimension E.
    """

    up: torch.Tensor
    up_bias: torch.Tensor
    down: torch.Tensor
    down_bias: torch.Tensor

    def of(self, expert: int) -> "ExpertWeights":
        """Views of one expert's tensors."""
        return ExpertWeights(*(stacked[expert] for stacked in self))


def grouped_feed_forward(hidden_TD: torch.Tensor, plan: DispatchPlan, weights: ExpertWeights, *, act) -> torch.Tensor:
    """act(tokens @ up + up_bias) @ down + down_bias [T, D], each token through the expert that the plan gives it.

    Both implementations keep the tokens and the values before the activation, T * (D + H) elements. An idle expert gets
    a zero gradient, not none: ZeRO relies on a gradient for every parameter.
    """
    feed_forward = GroupedMMFeedForward if _fits_grouped_mm(hidden_TD, weights.up, weights.down) else LoopFeedForward
    return feed_forward.apply(hidden_TD, plan, act, *weights)


def per_expert(function, hidden_TD: torch.Tensor, plan: DispatchPlan, *stacked: torch.Tensor) -> torch.Tensor:
    """function(tokens of expert e, weights of expert e) for every expert, in the order of the tokens."""
    runs = dispatch(hidden_TD, plan).split(plan.tokens_per_expert)
    # unbind, not weight[e] in the loop: its backward stacks once; indexing makes E full-size zeros.
    experts = zip(*(weight.unbind() for weight in stacked), strict=True)
    outputs = [function(run, *weights) for run, weights in zip(runs, experts, strict=True)]
    return combine(torch.cat(outputs), plan)


class LoopFeedForward(torch.autograd.Function):
    """One expert at a time: gather its tokens, multiply, scatter the results, all while they are in the cache.

    Plain autograd would stack E gradients into a copy of all weights; here each is written into its place.
    """

    @staticmethod
    def forward(ctx, hidden_TD, plan, act, *weights):
        weights = ExpertWeights(*weights)
        inner_TH = hidden_TD.new_empty(len(hidden_TD), weights.up.shape[2])
        outputs_TD = torch.empty_like(hidden_TD)
        for e, run in _runs(plan.tokens_per_expert):
            index, of_expert = plan.order_N[run], weights.of(e)
            torch.addmm(of_expert.up_bias, hidden_TD.index_select(0, index), of_expert.up, out=inner_TH[run])
            outputs_TD.index_copy_(0, index, torch.addmm(of_expert.down_bias, act(inner_TH[run]), of_expert.down))
        ctx.save_for_backward(hidden_TD, inner_TH, *weights)
        ctx.plan, ctx.act = plan, act
        return outputs_TD

    @staticmethod
    def backward(ctx, grad_TD):
        hidden_TD, inner_TH, *weights = ctx.saved_tensors
        weights = ExpertWeights(*weights)
        grad_hidden_TD = torch.empty_like(hidden_TD)
        grads = ExpertWeights(*(torch.empty_like(weight) for weight in weights))
        for e, run in _runs(ctx.plan.tokens_per_expert):
            index = ctx.plan.order_N[run]
            inputs, grad_outputs = (tensor.index_select(0, index) for tensor in (hidden_TD, grad_TD))
            grad_inputs = _expert_backward(inputs, inner_TH[run], grad_outputs, ctx.act, weights.of(e), grads.of(e))
            grad_hidden_TD.index_copy_(0, index, grad_inputs)
        _zero_idle(grads, ctx.plan.tokens_per_expert)
        return grad_hidden_TD, None, None, *grads


def _expert_backward(inputs, inner, grad_outputs, act, weights: ExpertWeights, grads: ExpertWeights) -> torch.Tensor:
    """Write one expert's gradients into `grads`; returns the gradient of its inputs."""
    activated, grad_inner = _activation_backward(act, inner, grad_outputs @ weights.down.T)
    torch.mm(activated.T, grad_outputs, out=grads.down)
    torch.mm(inputs.T, grad_inner, out=grads.up)
    torch.sum(grad_outputs, 0, out=grads.down_bias)
    torch.sum(grad_inner, 0, out=grads.up_bias)
    return grad_inner @ weights.up.T


class GroupedMMFeedForward(torch.autograd.Function):
    """All experts in one kernel per product, for GPUs, where single experts would leave most of the device idle.

    The host reads none of the results, so nothing waits for them.
    """

    @staticmethod
    def forward(ctx, hidden_TD, plan, act, up, up_bias, down, down_bias):
        place_T = torch.arange(len(hidden_TD), device=hidden_TD.device, dtype=torch.int32)
        expert_T = torch.searchsorted(plan.ends_E, place_T, right=True)
        sorted_TD = hidden_TD.index_select(0, plan.order_N)
        inner_TH = functional.grouped_mm(sorted_TD, up, offs=plan.ends_E).add_(up_bias.index_select(0, expert_T))
        outputs_TD = functional.grouped_mm(act(inner_TH), down, offs=plan.ends_E)
        outputs_TD.add_(down_bias.index_select(0, expert_T))
        ctx.save_for_backward(hidden_TD, inner_TH, up, down)
        ctx.plan, ctx.act = plan, act
        return outputs_TD.index_select(0, plan.place_N)

    @staticmethod
    def backward(ctx, grad_TD):
        hidden_TD, inner_TH, up, down = ctx.saved_tensors
        ends_E = ctx.plan.ends_E
        sorted_TD, grad_TD = (tensor.index_select(0, ctx.plan.order_N) for tensor in (hidden_TD, grad_TD))
        grad_activated_TH = functional.grouped_mm(grad_TD, down.transpose(1, 2), offs=ends_E)
        activated_TH, grad_inner_TH = _activation_backward(ctx.act, inner_TH, grad_activated_TH)
        grads = ExpertWeights(
            up=functional.grouped_mm(sorted_TD.T, grad_inner_TH, offs=ends_E),
            up_bias=_sum_by_expert(grad_inner_TH, ends_E),
            down=functional.grouped_mm(activated_TH.T, grad_TD, offs=ends_E),
            down_bias=_sum_by_expert(grad_TD, ends_E),
        )
        _zero_idle(grads, ctx.plan.tokens_per_expert)  # some GPUs leave the product of an empty run unwritten
        grad_sorted_TD = functional.grouped_mm(grad_inner_TH, up.transpose(1, 2), offs=ends_E)
        return grad_sorted_TD.index_select(0, ctx.plan.place_N), None, None, *grads


def _fits_grouped_mm(*tensors: torch.Tensor) -> bool:
    """Whether grouped_mm has kernels for them: bfloat16 in rows of 16 bytes; all else runs as a loop."""
    return (
        hasattr(functional, "grouped_mm")  # since torch 2.10
        and all(tensor.is_cuda and tensor.dtype == torch.bfloat16 and tensor.numel() > 0 for tensor in tensors)
        and all(tensor.shape[-1] % 8 == 0 and tensor.data_ptr() % 16 == 0 for tensor in tensors)
        and torch.cuda.get_device_capability(tensors[0].device) in _GROUPED_MM_DEVICES
    )


def _sum_by_expert(values_TD: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
    """The sum of each run [E, D], as a product with ones: summed in float32, in the same order every time."""
    ones_T8 = values_TD.new_ones(len(values_TD), 8)  # eight columns are the 16 bytes that grouped_mm requires
    return functional.grouped_mm(ones_T8.T, values_TD, offs=ends_E)[:, 0]


def _activation_backward(act, inner: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(act(inner), the gradient of inner)."""
    with torch.enable_grad():
        inner = inner.detach().requires_grad_()
        activated = act(inner)
    (grad_inner,) = torch.autograd.grad(activated, inner, grad)
    return activated.detach(), grad_inner


def _zero_idle(grads: ExpertWeights, tokens_per_expert: list[int]) -> None:
    """Zero the gradients of experts without tokens."""
    for e in (e for e, count in enumerate(tokens_per_expert) if count == 0):
        for grad in grads:
            grad[e].zero_()


def _runs(tokens_per_expert: list[int]):
    """(expert, slice of its tokens in expert order) for every expert that has any."""
    end = 0
    for e, count in enumerate(tokens_per_expert):
        begin, end = end, end + count
        if count:
            yield e, slice(begin, end)
