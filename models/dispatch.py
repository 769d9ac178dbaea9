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
    tokens_per_expert: rows per expert, host integers.
    ends_E: where each expert's run of rows ends, the sums of tokens_per_expert, int32 [E], as grouped matrix products take it.
    exchange: what expert parallelism needs to move rows between ranks; None on one device.
    """

    order_N: torch.Tensor
    row_N: torch.Tensor
    tokens_per_expert: list[int]
    ends_E: torch.Tensor
    exchange: Any = None


def make_plan(routes: Routes, num_experts: int, *, first: range = range(0)) -> Plan:
    """Sort the pairs by expert, ties by position, so that the plan is deterministic.

    first: experts whose rows come before all others', as expert parallelism wants its rank's own. tokens_per_expert and ends_E
    count by expert all the same, so they tell where runs lie only without it.
    """
    expert_N = routes.expert_N
    is_first_N = (expert_N >= first.start) & (expert_N < first.stop)
    order_N = torch.argsort(torch.where(is_first_N, expert_N - num_experts, expert_N), stable=True)
    row_N = torch.empty_like(order_N)
    row_N[order_N] = torch.arange(len(order_N), device=order_N.device)
    count_E = torch.bincount(expert_N, minlength=num_experts)
    return Plan(order_N, row_N, tokens_per_expert=count_E.tolist(), ends_E=count_E.cumsum(0, dtype=torch.int32))


def dispatch(hidden_TD: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Tokens [T, D] -> rows [T, D] in expert order."""
    return _Permute.apply(hidden_TD, plan.order_N, plan.row_N)


def combine(rows_TD: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Rows [T, D] in expert order -> tokens [T, D]; the mirror of dispatch."""
    return _Permute.apply(rows_TD, plan.row_N, plan.order_N)


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
