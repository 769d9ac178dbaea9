"""Dispatch and combine: tokens into expert order, and the experts' outputs back to their tokens.

A token becomes one pair per expert that takes it (take_pairs), and pairs are put into the order of their experts
(dispatch). Outputs go the same way back (combine, sum_pairs). In a hash layer tokens are pairs.
"""

from dataclasses import dataclass
from typing import Any

import torch

from .routes import Routes


@dataclass(frozen=True)
class DispatchPlan:
    """Everything that the experts need to know about one micro-batch before hidden states exist.

    order_N: pair at each place in expert order, int64 [N].
    place_N: place of each pair in expert order, the inverse permutation, int64 [N].
    tokens_per_expert: pairs of each expert, host integers.
    ends_E: end of each expert's run in expert order, the running sums of tokens_per_expert, int32 [E], as grouped
        matrix products take them.
    splits: how the pairs travel between the ranks of an expert-parallel group; None on one device.
    """

    order_N: torch.Tensor
    place_N: torch.Tensor
    tokens_per_expert: list[int]
    ends_E: torch.Tensor
    splits: Any = None


def make_plan(routes: Routes, num_experts: int, *, first: range = range(0)) -> DispatchPlan:
    """Sort the pairs by expert, ties by position, so that the plan is deterministic.

    first: experts whose pairs come before all others; expert parallelism puts its rank's own first. tokens_per_expert
    and ends_E stay in order of expert, so they locate the runs only if `first` is empty.
    """
    expert_N = routes.expert_N
    is_first_N = (expert_N >= first.start) & (expert_N < first.stop)
    order_N = torch.argsort(torch.where(is_first_N, expert_N - num_experts, expert_N), stable=True)
    place_N = torch.empty_like(order_N)
    place_N[order_N] = torch.arange(len(order_N), device=order_N.device)
    count_E = torch.bincount(expert_N, minlength=num_experts)
    return DispatchPlan(
        order_N, place_N, tokens_per_expert=count_E.tolist(), ends_E=count_E.cumsum(0, dtype=torch.int32)
    )


def take_pairs(hidden_TD: torch.Tensor, routes: Routes) -> torch.Tensor:
    """Tokens [T, D] -> pairs [N, D]."""
    return hidden_TD if routes.token_N is None else hidden_TD.index_select(0, routes.token_N)


def sum_pairs(pairs_ND: torch.Tensor, routes: Routes, hidden_TD: torch.Tensor, *, is_residual: bool) -> torch.Tensor:
    """Pairs [N, D] -> tokens [T, D]: the weighted sum of each token's pairs, added to the token if is_residual."""
    pairs_ND = pairs_ND * routes.weight_N.to(pairs_ND.dtype).unsqueeze(1)
    if routes.token_N is None:
        return hidden_TD + pairs_ND if is_residual else pairs_ND
    start_TD = hidden_TD if is_residual else torch.zeros_like(hidden_TD)
    return start_TD.index_add(0, routes.token_N, pairs_ND)


def dispatch(pairs_ND: torch.Tensor, plan: DispatchPlan) -> torch.Tensor:
    """Pairs [N, D] -> the same pairs in expert order."""
    return _Permute.apply(pairs_ND, plan.order_N, plan.place_N)


def combine(sorted_ND: torch.Tensor, plan: DispatchPlan) -> torch.Tensor:
    """Pairs [N, D] in expert order -> in their original order; the inverse of dispatch."""
    return _Permute.apply(sorted_ND, plan.place_N, plan.order_N)


class _Permute(torch.autograd.Function):
    """Gather by a permutation; the gradient is a gather by its inverse; plain indexing would scatter-add."""

    @staticmethod
    def forward(ctx, pairs_ND, index_N, inverse_N):
        ctx.save_for_backward(inverse_N)
        return pairs_ND.index_select(0, index_N)

    @staticmethod
    def backward(ctx, grad_ND):
        (inverse_N,) = ctx.saved_tensors
        return grad_ND.index_select(0, inverse_N), None, None
