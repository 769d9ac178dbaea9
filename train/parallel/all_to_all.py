"""All-to-all of tokens between the ranks that share experts: the splits, and the operation with its gradient."""

from dataclasses import dataclass, replace

import deepspeed.comm as dist
import torch

from models.dispatch import DispatchPlan, make_plan
from models.routes import Routes
from train.parallel.recomputation import received_once


@dataclass(frozen=True)
class AllToAllSplits:
    """How tokens travel between the P ranks of the expert-parallel group.

    num_kept: tokens that stay on this rank; they come first among those that leave and among those that arrive.
    input_splits, output_splits: tokens to and from each rank, host integers; 0 for this one.
    arrivals: the plan of the tokens that stayed and arrived, over this rank's experts; None if no experts follow.
    """

    num_kept: int
    input_splits: list[int]
    output_splits: list[int]
    arrivals: DispatchPlan | None

    @property
    def reversed(self) -> "AllToAllSplits":
        """The way back."""
        return replace(self, input_splits=self.output_splits, output_splits=self.input_splits)


def make_splits(send_Pe: torch.Tensor, receive_Pe: torch.Tensor, *, rank: int) -> AllToAllSplits:
    """The splits of rank number `rank`, from the tokens that it sends to, and receives from, each rank.

    send_Pe: by rank and expert of that rank, integers [P, e]. receive_Pe: by rank and expert of this one.
    """
    num_ranks, num_local_experts = receive_Pe.shape
    # Tokens arrive by (source rank, expert), this rank's first; the experts need them by (expert, source rank).
    sources = torch.tensor([rank, *(source for source in range(num_ranks) if source != rank)])
    expert_R = torch.arange(num_local_experts, device=receive_Pe.device).repeat(num_ranks)
    arrivals = Routes(expert_R.repeat_interleave(receive_Pe[sources].flatten()))
    input_splits, output_splits = send_Pe.sum(1).tolist(), receive_Pe.sum(1).tolist()
    num_kept, input_splits[rank], output_splits[rank] = input_splits[rank], 0, 0
    return AllToAllSplits(num_kept, input_splits, output_splits, make_plan(arrivals, num_local_experts))


class AllToAll(torch.autograd.Function):
    """Uneven all-to-all of the tokens that change rank, behind those that stay; the gradient travels the other way."""

    @staticmethod
    def forward(ctx, hidden_TD, splits, group):
        ctx.splits, ctx.group = splits, group
        return received_once(lambda: _all_to_all(hidden_TD, splits, group))

    @staticmethod
    def backward(ctx, grad_TD):
        return _all_to_all(grad_TD, ctx.splits.reversed, ctx.group), None, None


def _all_to_all(hidden_TD: torch.Tensor, splits: AllToAllSplits, group) -> torch.Tensor:
    kept = splits.num_kept
    arrived = hidden_TD.new_empty(kept + sum(splits.output_splits), *hidden_TD.shape[1:])
    arrived[:kept] = hidden_TD[:kept]
    dist.all_to_all_single(
        arrived[kept:], hidden_TD[kept:].contiguous(), splits.output_splits, splits.input_splits, group=group
    )
    return arrived
