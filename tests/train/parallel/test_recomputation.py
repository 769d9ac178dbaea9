"""A checkpointed block calls each collective once, and recomputes with what it received."""

import torch
from torch.utils.checkpoint import checkpoint

from train.parallel.recomputation import keep_received, received_once


class Doubled(torch.autograd.Function):
    """A stand-in for an all-to-all, that counts its forward passes."""

    calls = 0

    @staticmethod
    def forward(ctx, values):
        def receive():
            Doubled.calls += 1
            return values * 2

        return received_once(receive)

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


def block(values):
    return (Doubled.apply(values.sin()).cos() + Doubled.apply(values)).exp()


def gradient(run) -> tuple[torch.Tensor, int]:
    Doubled.calls = 0
    values = torch.linspace(-1, 1, 5, requires_grad=True)
    run(run(values)).sum().backward()
    return values.grad, Doubled.calls


def test_two_recomputed_blocks_have_the_same_gradient_without_another_call():
    expected, calls = gradient(block)
    found, calls_with_recomputation = gradient(
        lambda values: checkpoint(block, values, use_reentrant=False, context_fn=keep_received)
    )
    assert torch.equal(found, expected)
    assert calls == calls_with_recomputation == 4
