"""Grouped computation: each expert's weights on its own run of rows, with gradients written where they belong."""

import torch


def grouped_feed_forward(rows_ND, rows_E, up_EDH, up_bias_EH, down_EHD, down_bias_ED, *, act) -> torch.Tensor:
    """act(rows @ up + up_bias) @ down + down_bias, expert e on the e-th run of rows; rows_E are host integers.

    An idle expert gets a zero gradient, not none: ZeRO relies on a gradient for every parameter.
    """
    return _FeedForward.apply(rows_ND, rows_E, act, up_EDH, up_bias_EH, down_EHD, down_bias_ED)


def per_expert(function, rows: torch.Tensor, rows_E: list[int], *stacked: torch.Tensor) -> torch.Tensor:
    """Apply function(rows of expert e, weights of expert e) to each run of rows, and join the results."""
    # unbind, not weight[e] in the loop: its backward stacks once where indexing makes E full-size zeros.
    experts = zip(*(weight.unbind() for weight in stacked), strict=True)
    return torch.cat([function(run, *weights) for run, weights in zip(rows.split(rows_E), experts, strict=True)])


class _FeedForward(torch.autograd.Function):
    """Keeps the rows and the hidden layer before its activation, T * (d + D) elements, and nothing per expert.

    Plain autograd would stack E gradients into a copy of all weights; here each is written into its place. One
    expert at a time, forward and backward, its hidden rows stay in the cache between their two products.
    """

    @staticmethod
    def forward(ctx, rows, rows_E, act, up, up_bias, down, down_bias):
        hidden = rows.new_empty(len(rows), up.shape[2])
        outputs = rows.new_empty(len(rows), down.shape[2])
        for e, run in _runs(rows_E):
            torch.addmm(up_bias[e], rows[run], up[e], out=hidden[run])
            torch.addmm(down_bias[e], act(hidden[run]), down[e], out=outputs[run])
        ctx.save_for_backward(rows, hidden, up, up_bias, down, down_bias)
        ctx.rows_E, ctx.act = rows_E, act
        return outputs

    @staticmethod
    def backward(ctx, grad_outputs):
        rows, hidden, *weights = ctx.saved_tensors
        up, _, down, _ = weights
        grad_rows = torch.empty_like(rows)
        grads = [torch.empty_like(weight) for weight in weights]
        for e, run in _runs(ctx.rows_E):
            inputs = rows[run], hidden[run], grad_outputs[run], up[e], down[e]
            _backward_of_expert(*inputs, ctx.act, grad_rows[run], *(grad[e] for grad in grads))
        for e in (e for e, count in enumerate(ctx.rows_E) if count == 0):
            for grad in grads:
                grad[e].zero_()
        return grad_rows, None, None, *grads


def _backward_of_expert(
    rows, hidden, grad_outputs, up, down, act, grad_rows, grad_up, grad_up_bias, grad_down, grad_down_bias
) -> None:
    """Write the gradients of one expert's run into the last five tensors."""
    with torch.enable_grad():
        hidden = hidden.detach().requires_grad_()
        activated = act(hidden)
    (grad_hidden,) = torch.autograd.grad(activated, hidden, grad_outputs @ down.T)
    torch.mm(activated.detach().T, grad_outputs, out=grad_down)
    torch.mm(rows.T, grad_hidden, out=grad_up)
    torch.mm(grad_hidden, up.T, out=grad_rows)
    torch.sum(grad_outputs, 0, out=grad_down_bias)
    torch.sum(grad_hidden, 0, out=grad_up_bias)


def _runs(rows_E: list[int]):
    """(expert, slice of its rows) for every expert that has rows."""
    end = 0
    for e, count in enumerate(rows_E):
        begin, end = end, end + count
        if count:
            yield e, slice(begin, end)
