"""LearnedFFN, the layer whose router learns: a hash layer's experts, and a plan that waits for hidden states."""

import torch

from .dispatch import DispatchPlan, sum_pairs, take_pairs
from .gate import LearnedRouter
from .hash_keys import TokenContext
from .router_base import BaseRouter
from .router_expert_choice import ExpertChoiceRouter
from .router_gshard import GShardRouter
from .router_switch import SwitchRouter
from .router_token_switch import TokenSwitchRouter
from .routes import RoutingRecord
from .sparse_ffn import SparseFFN

LEARNED_ROUTERS = {
    "switch": SwitchRouter,
    "token_switch": TokenSwitchRouter,
    "gshard": GShardRouter,
    "base": BaseRouter,
    "expert_choice": ExpertChoiceRouter,
}


def make_sparse_ffn(config, index: int) -> SparseFFN:
    """The sparse layer number `index` of a network, with the router that the configuration names."""
    return SparseFFN(config, index) if config.router == "hash" else LearnedFFN(config, index)


class LearnedFFN(SparseFFN):
    """The same experts, dispatch and combine as SparseFFN's, but routes carry weights and depend on hidden states.

    A layer that replaces a feed-forward gives each token the weighted sum of its experts' outputs, zero without any. An
    inserted one adds to the token the weighted sum of the changes that its experts make to it (Lewis et al., 2021,
    equation 2).
    """

    def __init__(self, config, index: int):
        super().__init__(config, index)
        self.is_inserted = config.placement == "insert"
        self.shuffle = None  # train/parallel/token_shuffle.py sets one for BASE layers

    @staticmethod
    def make_router(config, index: int) -> LearnedRouter:
        return LEARNED_ROUTERS[config.router](config)

    def plan(self, context: TokenContext | None) -> list[DispatchPlan]:
        """Empty: no plan can be made before the forward pass."""
        return []

    def forward(
        self, hidden_BSD: torch.Tensor, plans: list[DispatchPlan], token_ids: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, RoutingRecord]:
        """token_ids: int64 [B, S], for routers that read them."""
        hidden_TD = hidden_BSD.flatten(0, 1)
        ids_T = None if token_ids is None else token_ids.flatten()
        if self.shuffle is None or not self.training:
            outputs_TD, record = self._apply_experts(hidden_TD, ids_T)
        else:
            shuffled_TD, restore = self.shuffle(hidden_TD)
            outputs_TD, record = self._apply_experts(shuffled_TD, ids_T)
            outputs_TD = restore(outputs_TD)
        return self.dropout(outputs_TD).view_as(hidden_BSD), record

    def _apply_experts(
        self, hidden_TD: torch.Tensor, ids_T: torch.Tensor | None
    ) -> tuple[torch.Tensor, RoutingRecord]:  # fmt: skip
        routing = self.router.route(hidden_TD, ids_T)
        plan = self.experts.plan(routing.routes)
        pairs_ND = take_pairs(hidden_TD, routing.routes)
        outputs_ND = self.experts(pairs_ND, plan)
        if self.is_inserted:
            outputs_ND = outputs_ND - pairs_ND
        outputs_TD = sum_pairs(outputs_ND, routing.routes, hidden_TD, is_residual=self.is_inserted)
        return outputs_TD, RoutingRecord(len(hidden_TD), plan.tokens_per_expert, routing)
