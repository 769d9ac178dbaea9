"""Local plans: how each sparse layer dispatches this rank's tokens, from copies of the routers and nothing else.

A local plan lacks the splits between ranks (train/prefetch/route_ahead.py adds them). It follows from token ids, so any
process can make it: a LocalPlanner holds no model, can be sent to other processes, and is imported quickly there.
"""

from dataclasses import dataclass

from models.dispatch import DispatchPlan, make_plan
from models.hash_keys import TokenContext, token_context
from models.router_hash import HashRouter
from train.data.batches import Batch


@dataclass(frozen=True)
class LayerPlanner:
    """Plans one sparse layer.

    router: on the host. num_experts: on all ranks. expert_ids: those of this rank, whose tokens come first.
    """

    router: HashRouter
    num_experts: int
    expert_ids: range

    def plan(self, context: TokenContext) -> list[DispatchPlan]:
        """The plan of each hash, on the host.

        forward() is called, not the module: ZeRO 3 hooks module calls, to count those of the training thread.
        """
        return [
            make_plan(routes, self.num_experts, first=self.expert_ids) for routes in self.router.forward(context)
        ]  # fmt: skip


@dataclass(frozen=True)
class LocalPlanner:
    """Plans all sparse layers. layers: by the index of their block. none: the id of "no previous token"."""

    layers: dict[int, LayerPlanner]
    none: int

    def plan(self, batch: Batch) -> dict[int, list[DispatchPlan]]:
        """The plans of each layer, one per hash."""
        context = token_context(batch.input_ids, none=self.none, **batch.known)
        return {index: layer.plan(context) for index, layer in self.layers.items()}
