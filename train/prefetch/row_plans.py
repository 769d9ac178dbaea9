"""Row plans: what each sparse layer does with the rows of a batch, from copies of the routers and nothing else.

A row plan is a plan without its exchange between ranks (train/prefetch/route_ahead.py adds that). It follows from
token ids, so any process can make it: a RowPlanner holds no model, can be sent to other processes, and is quickly
imported there.
"""

from dataclasses import dataclass

from models.dispatch import Plan, make_plan
from models.hash_keys import token_context
from models.router_hash import HashRouter
from train.data.batches import Batch


@dataclass(frozen=True)
class LayerPlanner:
    """One sparse layer.

    router: on the host. num_experts: on all ranks. expert_ids: those of this rank, whose rows come first.
    """

    router: HashRouter
    num_experts: int
    expert_ids: range


@dataclass(frozen=True)
class RowPlanner:
    """Plans all sparse layers. layers: by the index of their block. none: the id of "no previous token"."""

    layers: dict[int, LayerPlanner]
    none: int

    def plan(self, batch: Batch) -> dict[int, list[Plan]]:
        """The plan of each layer and hash, on the host.

        forward() is called, not the module: ZeRO 3 hangs hooks on it that keep account of the training thread's calls.
        """
        context = token_context(batch.input_ids, none=self.none, **batch.known)
        return {
            index: [
                make_plan(routes, layer.num_experts, first=layer.expert_ids) for routes in layer.router.forward(context)
            ]
            for index, layer in self.layers.items()
        }
