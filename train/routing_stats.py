"""RoutingStats: what the routers did since the last line of the log, besides the load of the experts."""

import deepspeed.comm as dist
import torch

from models.learned_ffn import late_plans
from train.config import RunConfig


class RoutingStats:
    """Collects on every rank without waiting for the device; take() reduces over all ranks."""

    def __init__(self, config: RunConfig):
        # A hash drops no token and has no distribution; a dense model does not route.
        dropped_share = 0.0 if config.sparse_layers and config.router == "hash" else None
        self._none = {"dropped_share": dropped_share, "routing_entropy": None, "auxiliary_loss": None}
        self._of_layers: list[torch.Tensor] = []
        self._num_micro_batches = 0

    def add(self, plans: dict[int, list]) -> None:
        """After the forward pass of a micro-batch."""
        late = late_plans(plans)
        for plan in late:
            routing = plan.routing
            loss = 0.0 if routing.auxiliary_loss is None else routing.auxiliary_loss.detach()
            values = (routing.num_dropped / plan.input_ids.numel(), routing.entropy, loss)
            self._of_layers.append(torch.stack([torch.as_tensor(v, device=routing.entropy.device) for v in values]))
        self._num_micro_batches += bool(late)

    def take(self, device: torch.device) -> dict[str, float | None]:
        """Means since this was last called. Collective over all ranks, which have added equally often.

        dropped_share: of the tokens, the mean of the layers. routing_entropy: in nats, the mean of the layers.
        auxiliary_loss: what all layers together added to the loss.
        """
        if not self._of_layers:
            return self._none
        total = torch.stack(self._of_layers).double().sum(0).to(device)
        dist.all_reduce(total, group=dist.get_world_group())
        num_layers = len(self._of_layers) * dist.get_world_size()
        num_passes = self._num_micro_batches * dist.get_world_size()
        self._of_layers, self._num_micro_batches = [], 0
        dropped, entropy, loss = total.tolist()
        return {
            "dropped_share": dropped / num_layers,
            "routing_entropy": entropy / num_layers,
            "auxiliary_loss": loss / num_passes,
        }
