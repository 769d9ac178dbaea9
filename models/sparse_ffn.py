"""SparseFFN, the layer: route, dispatch, experts, combine (Roller et al., 2021, section 3)."""

import torch
from torch import nn

from .dispatch import Plan, combine, dispatch
from .experts import Experts
from .router_hash import HashRouter


class SparseFFN(nn.Module):
    """A feed-forward made of E experts, of which each token uses the one that its table entry names.

    Routes depend on token ids alone, so the plan is made before hidden states exist, and forward() neither
    synchronises nor chooses anything. Expert parallelism replaces `experts`, and nothing else.
    """

    def __init__(self, config):
        super().__init__()
        self.router = HashRouter(config)
        self.experts = Experts(config)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def plan(self, input_ids: torch.Tensor) -> Plan:
        """Token ids [B, S] -> the plan of this layer."""
        return self.experts.plan(self.router(input_ids))

    def forward(self, hidden_BSD: torch.Tensor, plan: Plan) -> torch.Tensor:
        rows = dispatch(hidden_BSD.flatten(0, 1), plan)
        tokens = combine(self.experts(rows, plan), plan)
        return self.dropout(tokens).view_as(hidden_BSD)
