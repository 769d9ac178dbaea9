"""Token shuffle: before a BASE layer routes, tokens move to random ranks, and afterwards they return.

Each rank balances the tokens that it has, and those of one document prefer the same few experts. The price is two more
all-to-alls, which hash layers save (paper, section 5.3.4).
"""

from collections.abc import Callable

import torch
from torch import nn

from models.learned_ffn import LearnedFFN
from models.router_base import BaseRouter
from train.parallel.all_to_all import AllToAll, AllToAllSplits
from train.parallel.expert_parallel import ExpertParallelExperts


def shuffle_base_tokens(model: nn.Module) -> None:
    """Let every BASE layer of a model shuffle its tokens among the ranks that share its experts, while it trains."""
    for layer in model.modules():
        if isinstance(layer, LearnedFFN) and isinstance(layer.router, BaseRouter):
            if isinstance(layer.experts, ExpertParallelExperts):
                layer.shuffle = TokenShuffle(layer.experts)


class TokenShuffle:
    """Swaps random tokens between the ranks of the experts' group; each rank draws its own permutation.

    Collective over the expert-parallel group, whose ranks hold the same number of tokens.
    """

    def __init__(self, experts: ExpertParallelExperts):
        self._group, self._rank, self._num_ranks = experts.ep_group, experts.ep_rank, experts.ep_size

    def __call__(self, hidden_TD: torch.Tensor) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
        """The shuffled tokens, and the function that returns their outputs to where the tokens came from."""
        order_T = torch.randperm(len(hidden_TD), device=hidden_TD.device)
        splits = even_splits(len(hidden_TD), rank=self._rank, num_ranks=self._num_ranks)
        shuffled_TD = AllToAll.apply(hidden_TD.index_select(0, order_T), splits, self._group)

        def restore(outputs_TD: torch.Tensor) -> torch.Tensor:
            return AllToAll.apply(outputs_TD, splits.reversed, self._group).index_select(0, order_T.argsort())

        return shuffled_TD, restore


def even_splits(num_tokens: int, *, rank: int, num_ranks: int) -> AllToAllSplits:
    """An equal share of the tokens to each other rank; the rest stays, so that no rank's number of tokens changes."""
    share = num_tokens // num_ranks
    input_splits = [0 if other == rank else share for other in range(num_ranks)]
    return AllToAllSplits(
        num_kept=num_tokens - sum(input_splits), input_splits=input_splits, output_splits=input_splits, arrivals=None
    )
