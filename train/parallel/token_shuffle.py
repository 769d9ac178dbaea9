"""Token shuffle: before a BASE layer routes, tokens change to random ranks, and afterwards they go back.

Each rank balances the tokens that it has, and those of one document want the same few experts. Two more all-to-alls are
the price, which hash layers save (paper, section 5.3.4).
"""

from collections.abc import Callable

import torch
from torch import nn

from models.learned_ffn import LearnedFFN
from models.router_base import BaseRouter
from train.parallel.expert_parallel import AllToAll, AllToAllSplits, ExpertParallelExperts


def shuffle_base_tokens(model: nn.Module) -> None:
    """Let every BASE layer of a model shuffle its tokens among the ranks that share its experts, while it trains."""
    for layer in model.modules():
        if isinstance(layer, LearnedFFN) and isinstance(layer.router, BaseRouter):
            if isinstance(layer.experts, ExpertParallelExperts):
                layer.shuffle = TokenShuffle(layer.experts)


class TokenShuffle:
    """Applies a function to tokens that come from all ranks of the experts' group, and brings its results back.

    Collective over the expert-parallel group, whose ranks have equally many tokens; each draws its own permutation.
    """

    def __init__(self, experts: ExpertParallelExperts):
        self._group, self._rank, self._num_ranks = experts.ep_group, experts.ep_rank, experts.ep_size

    def __call__(
        self, function: Callable[[torch.Tensor], torch.Tensor], hidden_TD: torch.Tensor
    ) -> torch.Tensor:  # fmt: skip
        order_T = torch.randperm(len(hidden_TD), device=hidden_TD.device)
        exchange = even_exchange(len(hidden_TD), rank=self._rank, num_ranks=self._num_ranks)
        shuffled_TD = AllToAll.apply(hidden_TD.index_select(0, order_T), exchange, self._group)
        outputs_TD = AllToAll.apply(function(shuffled_TD), exchange.reversed, self._group)
        return outputs_TD.index_select(0, order_T.argsort())


def even_exchange(num_tokens: int, *, rank: int, num_ranks: int) -> AllToAllSplits:
    """An equal share of the tokens to each other rank, and what is left stays: every rank has as many as before."""
    share = num_tokens // num_ranks
    input_splits = [0 if other == rank else share for other in range(num_ranks)]
    return AllToAllSplits(
        num_kept=num_tokens - sum(input_splits), input_splits=input_splits, output_splits=input_splits, local=None
    )
