"""LearnedFFN, the layer whose router learns: a hash layer's experts, and a plan that waits for hidden states."""

from dataclasses import dataclass

import torch

from .dispatch import Plan
from .gate import LearnedRouter
from .hash_keys import TokenContext
from .router_base import BaseRouter
from .router_expert_choice import ExpertChoiceRouter
from .router_gshard import GShardRouter
from .router_switch import SwitchRouter
from .router_token_switch import TokenSwitchRouter
from .routes import Routing
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


@dataclass
class LatePlan:
    """What a learned layer is given in the place of a plan, and writes its decisions into when it is called.

    input_ids: int64 [B, S], for routers that read them. routing, plan: of the last forward pass.
    """

    input_ids: torch.Tensor | None
    routing: Routing | None = None
    plan: Plan | None = None

    @property
    def tokens_per_expert(self) -> list[int]:
        """Rows per expert, host integers, as Plan.tokens_per_expert."""
        return self.plan.tokens_per_expert


def late_plans(plans: dict[int, list]) -> list[LatePlan]:
    """Those of learned layers among the plans of a model's layers."""
    return [plan for layer_plans in plans.values() for plan in layer_plans if isinstance(plan, LatePlan)]


def add_auxiliary_losses(loss: torch.Tensor, plans: dict[int, list]) -> torch.Tensor:
    """The loss and what the routers of the forward pass before want to be added to it; hash layers want nothing."""
    for plan in late_plans(plans):
        if plan.routing.auxiliary_loss is not None:
            loss = loss + plan.routing.auxiliary_loss
    return loss


class LearnedFFN(SparseFFN):
    """The same experts, dispatch and combine as SparseFFN's; routes are weighed, and known only when it is called.

    A layer that replaces a feed-forward gives each token the weighted sum of its experts' outputs, zero without any. An
    inserted one adds to the token the weighted sum of what its experts change of it (Lewis et al., 2021, equation 2).
    """

    def __init__(self, config, index: int):
        super().__init__(config, index)
        self.is_inserted = config.placement == "insert"
        self.shuffle = None  # train/parallel/token_shuffle.py sets one for BASE layers

    @staticmethod
    def make_router(config, index: int) -> LearnedRouter:
        return LEARNED_ROUTERS[config.router](config)

    def plan(self, context: TokenContext | None) -> list[LatePlan]:
        """What the plan is to be made from, as far as it is known before the forward pass."""
        return [LatePlan(context and context.current)]

    def forward(self, hidden_BSD: torch.Tensor, plans: list[LatePlan]) -> torch.Tensor:
        (late,) = plans
        hidden_TD = hidden_BSD.flatten(0, 1)
        if self.shuffle is None or not self.training:
            outputs_TD = self._apply_experts(hidden_TD, late)
        else:
            outputs_TD = self.shuffle(lambda shuffled_TD: self._apply_experts(shuffled_TD, late), hidden_TD)
        return self.dropout(outputs_TD).view_as(hidden_BSD)

    def _apply_experts(self, hidden_TD: torch.Tensor, late: LatePlan) -> torch.Tensor:
        ids_T = None if late.input_ids is None else late.input_ids.flatten()
        late.routing = self.router.route(hidden_TD, ids_T)
        routes = late.routing.routes
        late.plan = self.experts.plan(routes)
        rows_ND = hidden_TD if routes.token_N is None else hidden_TD.index_select(0, routes.token_N)
        outputs_ND = self.experts(rows_ND, late.plan)
        changes_ND = outputs_ND - rows_ND if self.is_inserted else outputs_ND
        changes_ND = changes_ND * routes.weight_N.to(changes_ND.dtype).unsqueeze(1)
        if routes.token_N is None:
            return hidden_TD + changes_ND if self.is_inserted else changes_ND
        start_TD = hidden_TD if self.is_inserted else torch.zeros_like(hidden_TD)
        return start_TD.index_add(0, routes.token_N, changes_ND)
