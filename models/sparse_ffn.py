"""SparseFFN, the layer: route, dispatch, experts, combine (Roller et al., 2021, section 3)."""

import torch
from torch import nn

from .dispatch import Plan
from .experts import Experts, Segment, StackedExperts
from .hash_keys import TokenContext
from .router_hash import HashRouter


class SparseFFN(nn.Module):
    """A feed-forward made of E experts, of which each token uses the one that its table entry names.

    Routes depend on token ids alone, so plans are made before hidden states exist, and forward() neither
    synchronises nor chooses anything. Expert parallelism replaces `experts`, and nothing else.
    """

    def __init__(self, config, index: int):
        super().__init__()
        self.router = self.make_router(config, index)
        self.experts = Experts(config) if config.placement == "replace" else StackedExperts(config)
        self.dropout = nn.Dropout(config.resid_pdrop if config.placement == "replace" else 0.0)

    @staticmethod
    def make_router(config, index: int) -> nn.Module:
        return HashRouter(config, index)

    def plan(self, context: TokenContext) -> list[Plan]:
        """The plan of each hash."""
        return [self.experts.plan(routes) for routes in self.router(context)]

    def forward(self, hidden_BSD: torch.Tensor, plans: list[Plan]) -> torch.Tensor:
        hidden_TD = hidden_BSD.flatten(0, 1)
        outputs_TD = self.experts(hidden_TD, plans[0]) if len(plans) == 1 else self._multi_hash(hidden_TD, plans)
        return self.dropout(outputs_TD).view_as(hidden_BSD)

    def _multi_hash(self, tokens: torch.Tensor, plans: list[Plan]) -> torch.Tensor:
        """v = act([A_k1(h) .. A_kN(h)]), then [B_k1(v) .. B_kN(v)] (section 3.2): hash m chooses segment m of both."""
        for matrix in ("up", "down"):
            segments = [Segment(matrix, index, len(plans)) for index in range(len(plans))]
            parts = [self.experts(tokens, plan, segment) for plan, segment in zip(plans, segments, strict=True)]
            tokens = torch.cat(parts, dim=1)
            if matrix == "up":
                tokens = self.experts.act(tokens)
        return tokens
