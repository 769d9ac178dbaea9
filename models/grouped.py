"""Grouped computation: each expert's weights on its own run of tokens, with gradients written where they belong."""

import torch
from torch.nn import functional

from .dispatch import DispatchPlan, combine, dispatch


def grouped_feed_forward(
    hidden_TD, plan: DispatchPlan, up_EDH, up_bias_EH, down_EHD, down_bias_ED, *, act
) -> torch.Tensor:
    """act(tokens @ up + up_bias) @ down + down_bias [T, D], each token through the expert that the plan gives it.

    Both ways of doing it keep the tokens and the hidden layer before its activation, T * (d + D) elements. An idle
    expert gets a zero gradient, not none: ZeRO relies on a gradient for every parameter.
    """
    feed_forward = GroupedMMFeedForward if _fits_grouped_mm(hidden_TD, up_EDH, down_EHD) else LoopFeedForward
    return feed_forward.apply(hidden_TD, plan, act, up_EDH, up_bias_EH, down_EHD, down_bias_ED)


def per_expert(function, hidden_TD: torch.Tensor, plan: DispatchPlan, *stacked: torch.Tensor) -> torch.Tensor:
    """function(tokens of expert e, weights of expert e) for every expert, in the order of the tokens."""
    runs = dispatch(hidden_TD, plan).split(plan.tokens_per_expert)
    # unbind, not weight[e] in the loop: its backward stacks once where indexing makes E full-size zeros.
    experts = zip(*(weight.unbind() for weight in stacked), strict=True)
    outputs = [function(run, *weights) for run, weights in zip(runs, experts, strict=True)]
    return combine(torch.cat(outputs), plan)


class LoopFeedForward(torch.autograd.Function):
    """One expert at a time: gather its tokens, multiply, scatter the results, all while they lie in the cache.

    Plain autograd would stack E gradients into a copy of all weights; here each is written into its place.
    """

    @staticmethod
    def forward(ctx, tokens, plan, act, up, up_bias, down, down_bias):
        hidden = tokens.new_empty(len(tokens), up.shape[2])
        outputs = torch.empty_like(tokens)
        for e, run in _runs(plan.tokens_per_expert):
            index = plan.order_N[run]
            torch.addmm(up_bias[e], tokens.index_select(0, index), up[e], out=hidden[run])
            outputs.index_copy_(0, index, torch.addmm(down_bias[e], act(hidden[run]), down[e]))
        ctx.save_for_backward(tokens, hidden, up, up_bias, down, down_bias)
        ctx.plan, ctx.act = plan, act
        return outputs

    @staticmethod
    def backward(ctx, grad_outputs):
        tokens, hidden, *weights = ctx.saved_tensors
        grad_tokens = torch.empty_like(tokens)
        grads = [torch.empty_like(weight) for weight in weights]
        for e, run in _runs(ctx.plan.tokens_per_expert):
            index = ctx.plan.order_N[run]
            rows, grad_rows = (tensor.index_select(0, index) for tensor in (tokens, grad_outputs))
            of_expert = [tensor[e] for tensor in (*weights, *grads)]
            grad_tokens.index_copy_(0, index, _backward_of_expert(rows, hidden[run], grad_rows, ctx.act, *of_expert))
        _zero_idle(grads, ctx.plan.tokens_per_expert)
        return grad_tokens, None, None, *grads


def _backward_of_expert(
    rows, hidden, grad_outputs, act, up, _, down, __, grad_up, grad_up_bias, grad_down, grad_down_bias
) -> torch.Tensor:
    """Write one expert's gradients into the last four tensors; returns the gradient of its rows."""
    activated, grad_hidden = _activation_backward(act, hidden, grad_outputs @ down.T)
    torch.mm(activated.T, grad_outputs, out=grad_down)
    torch.mm(rows.T, grad_hidden, out=grad_up)
    torch.sum(grad_outputs, 0, out=grad_down_bias)
    torch.sum(grad_hidden, 0, out=grad_up_bias)
    return grad_hidden @ up.T


class GroupedMMFeedForward(torch.autograd.Function):
    """All experts in one kernel per product, for GPUs, where single experts would leave most of the device idle.

    The host knows nothing of the results, so nothing waits for them.
    """

    @staticmethod
    def forward(ctx, tokens, plan, act, up, up_bias, down, down_bias):
        place_N = torch.arange(len(tokens), device=tokens.device, dtype=torch.int32)
        expert_N = torch.searchsorted(plan.ends_E, place_N, right=True)
        rows = tokens.index_select(0, plan.order_N)
        hidden = functional.grouped_mm(rows, up, offs=plan.ends_E).add_(up_bias.index_select(0, expert_N))
        outputs = functional.grouped_mm(act(hidden), down, offs=plan.ends_E).add_(down_bias.index_select(0, expert_N))
        ctx.save_for_backward(tokens, hidden, up, down)
        ctx.plan, ctx.act = plan, act
        return outputs.index_select(0, plan.place_N)

    @staticmethod
    def backward(ctx, grad_outputs):
        tokens, hidden, up, down = ctx.saved_tensors
        ends_E = ctx.plan.ends_E
        rows, grad_rows = (tensor.index_select(0, ctx.plan.order_N) for tensor in (tokens, grad_outputs))
        grad_activated = functional.grouped_mm(grad_rows, down.transpose(1, 2), offs=ends_E)
        activated, grad_hidden = _activation_backward(ctx.act, hidden, grad_activated)
        grads = [
            functional.grouped_mm(rows.T, grad_hidden, offs=ends_E),
            _sum_by_expert(grad_hidden, ends_E),
            functional.grouped_mm(activated.T, grad_rows, offs=ends_E),
            _sum_by_expert(grad_rows, ends_E),
        ]
        _zero_idle(grads, ctx.plan.tokens_per_expert)  # some GPUs leave the product of an empty run unwritten
        grad_tokens = functional.grouped_mm(grad_hidden, up.transpose(1, 2), offs=ends_E).index_select(
            0, ctx.plan.place_N
        )
        return grad_tokens, None, None, *grads


def _fits_grouped_mm(*tensors: torch.Tensor) -> bool:
    """Its kernels are for bfloat16 in lines of 16 bytes; all else runs as a loop that asks the device for the ends."""
    return (
        hasattr(functional, "grouped_mm")  # since torch 2.10
        and all(tensor.is_cuda and tensor.dtype == torch.bfloat16 and tensor.numel() > 0 for tensor in tensors)
        and all(tensor.shape[-1] % 8 == 0 and tensor.data_ptr() % 16 == 0 for tensor in tensors)
    )


def _sum_by_expert(rows_ND: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
    """The sum of each run [E, D], as a product with ones: summed in float32, in the same order every time."""
    ones_N8 = rows_ND.new_ones(len(rows_ND), 8)  # eight columns are the 16 bytes that grouped_mm asks for
    return functional.grouped_mm(ones_N8.T, rows_ND, offs=ends_E)[:, 0]


def _activation_backward(act, hidden: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(act(hidden), the gradient of hidden)."""
    with torch.enable_grad():
        hidden = hidden.detach().requires_grad_()
        activated = act(hidden)
    (grad_hidden,) = torch.autograd.grad(activated, hidden, grad)
    return activated.detach(), grad_hidden


def _zero_idle(grads: list[torch.Tensor], tokens_per_expert: list[int]) -> None:
    """Zero the gradients of experts without rows."""
    for e in (e for e, count in enumerate(tokens_per_expert) if count == 0):
        for grad in grads:
            grad[e].zero_()


def _runs(tokens_per_expert: list[int]):
    """(expert, slice of its rows) for every expert that has rows."""
    end = 0
    for e, count in enumerate(tokens_per_expert):
        begin, end = end, end + count
        if count:
            yield e, slice(begin, end)
