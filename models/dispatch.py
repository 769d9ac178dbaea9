"""Dispatch and combine: tokens into expert order, and the experts' rows back to their tokens."""

from dataclasses import dataclass
from typing import Any

import torch

from .routes import Routes


@dataclass(frozen=True)
class Plan:
    """All that a sparse layer must know of one micro-batch before it sees hidden states.

    order_N: pair that fills each row in expert order, int64 [N].
    row_N: row that holds each pair, the inverse permutation, int64 [N].
    rows_E: rows per expert, host integers.
    exchange: what expert parallelism needs to move rows between ranks; None on one device.
    """

    order_N: torch.Tensor
    row_N: torch.Tensor
    rows_E: list[int]
    exchange: Any = None


def make_plan(routes: Routes, num_experts: int) -> Plan:
    """Sort the pairs by expert, ties by position, so that the plan is deterministic."""
    order_N = torch.argsort(routes.expert_N, stable=True)
    row_N = torch.empty_like(order_N)
    row_N[order_N] = torch.arange(len(order_N), device=order_N.device)
    rows_E = torch.bincount(routes.expert_N, minlength=num_experts).tolist()
    return Plan(order_N=order_N, row_N=row_N, rows_E=rows_E)


def dispatch(tokens_TD: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Tokens [T, D] -> rows [T, D] in expert order."""
    return permute_rows(tokens_TD, plan.order_N, plan.row_N)


def combine(rows_TD: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Rows [T, D] in expert order -> tokens [T, D]; the mirror of dispatch."""
    return permute_rows(rows_TD, plan.row_N, plan.order_N)


def permute_rows(rows: torch.Tensor, index: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """rows[index] where `inverse` undoes `index`."""
    return _Permute.apply(rows, index, inverse)


class _Permute(torch.autograd.Function):
    """Gather rows by a permutation; the gradient is a gather by its inverse, where indexing would scatter-add."""

    @staticmethod
    def forward(ctx, rows, index, inverse):
        ctx.save_for_backward(inverse)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx, grad):
        (inverse,) = ctx.saved_tensors
        return grad.index_select(0, inverse), None, None
