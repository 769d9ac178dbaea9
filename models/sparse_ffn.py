"""SparseFFN, the layer: route, dispatch, experts, combine (Roller et al., 2021, section 3)."""

import torch
from torch import nn

from .dispatch import DispatchPlan
from .experts import Experts, Segment, StackedExperts
from .hash_keys import TokenContext
from .router_hash import HashRouter
from .routes import RoutingRecord


class SparseFFN(nn.Module):
    """A feed-forward made of E experts, of which each token uses the one that its table entry names.

    plan() routes: it needs token ids alone, so plans are made before hidden states exist. forward() applies the
    experts, which dispatch and combine by the plan: in one fused loop or kernel on one device (models/grouped.py),
    around an all-to-all on several (train/parallel/). Expert parallelism replaces `experts`, and nothing else.
    """

    def __init__(self, config, index: int):
        super().__init__()
        self.router = self.make_router(config, index)
        self.experts = Experts(config) if config.placement == "replace" else StackedExperts(config)
        self.dropout = nn.Dropout(config.resid_pdrop if config.placement == "replace" else 0.0)

    @staticmethod
    def make_router(config, index: int) -> nn.Module:
        return HashRouter(config, index)

    def plan(self, context: TokenContext) -> list[DispatchPlan]:
        """The plan of each hash."""
        return [self.experts.plan(routes) for routes in self.router(context)]

    def forward(
        self, hidden_BSD: torch.Tensor, plans: list[DispatchPlan], token_ids: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, RoutingRecord]:
        """The outputs [B, S, D], and the layer's report. Only learned routers read token_ids."""
        hidden_TD = hidden_BSD.flatten(0, 1)
        outputs_TD = self.experts(hidden_TD, plans[0]) if len(plans) == 1 else self._multi_hash(hidden_TD, plans)
        counts = zip(*(plan.tokens_per_expert for plan in plans), strict=True)
        record = RoutingRecord(len(hidden_TD), tokens_per_expert=[sum(count) for count in counts])
        return self.dropout(outputs_TD).view_as(hidden_BSD), record

    def _multi_hash(self, hidden_TD: torch.Tensor, plans: list[DispatchPlan]) -> torch.Tensor:
        """v = act([A_k1(h) .. A_kN(h)]), then [B_k1(v) .. B_kN(v)] (section 3.2): hash m chooses segment m of both."""
        for matrix in ("up", "down"):
            segments = [Segment(matrix, index, len(plans)) for index in range(len(plans))]
            parts = [self.experts(hidden_TD, plan, segment) for plan, segment in zip(plans, segments, strict=True)]
            hidden_TD = torch.cat(parts, dim=1)
            if matrix == "up":
                hidden_TD = self.experts.act(hidden_TD)
        return hidden_TD
