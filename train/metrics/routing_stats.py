"""RoutingStats: dropped tokens, entropy and auxiliary loss of the routers since the last line of the log."""

import deepspeed.comm as dist
import torch

from models.routes import RoutingRecord
from train.config.run_config import RunConfig


class RoutingStats:
    """Collects on every rank without waiting for the device, until take() reduces over all ranks."""

    def __init__(self, config: RunConfig):
        # A hash drops no token and has no distribution; a dense model does not route.
        dropped_share = 0.0 if config.sparse_layers and config.router == "hash" else None
        self._none = {"dropped_share": dropped_share, "routing_entropy": None, "auxiliary_loss": None}
        self._micro_batches: list[torch.Tensor] = []

    def add(self, records: dict[int, RoutingRecord]) -> None:
        """Keep the routing of a micro-batch, after its forward pass."""
        learned = [record for record in records.values() if record.routing is not None]
        if learned:
            self._micro_batches.append(torch.stack([_numbers(record) for record in learned]))

    def discard(self, num_micro_batches: int) -> None:
        """Discard the last micro-batches, those of a skipped step."""
        del self._micro_batches[len(self._micro_batches) - num_micro_batches :]

    def take(self, device: torch.device) -> dict[str, float | None]:
        """Means since the last call. Collective over all ranks, which must have added the same number of micro-batches.

        dropped_share: of the tokens, mean over layers. routing_entropy: in nats, mean over layers.
        auxiliary_loss: added to the loss, summed over layers.
        """
        if not self._micro_batches:
            return self._none
        of_layers = torch.stack(self._micro_batches).double().mean(0).to(device) / dist.get_world_size()
        self._micro_batches = []
        dist.all_reduce(of_layers, group=dist.get_world_group())
        dropped_share, entropy, _ = of_layers.mean(0).tolist()
        loss = of_layers[:, 2].sum().item()
        return {"dropped_share": dropped_share, "routing_entropy": entropy, "auxiliary_loss": loss}


def _numbers(record: RoutingRecord) -> torch.Tensor:
    """Share of dropped tokens, entropy and auxiliary loss of one layer, on its device: [3]."""
    routing = record.routing
    loss = torch.zeros_like(routing.entropy) if routing.auxiliary_loss is None else routing.auxiliary_loss.detach()
    return torch.stack([routing.num_dropped / record.num_tokens, routing.entropy, loss])
