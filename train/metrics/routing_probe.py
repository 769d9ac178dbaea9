"""RoutingProbe: the share of a fixed batch's tokens that are routed differently from the previous validation."""

import deepspeed.comm as dist
import torch

from models.routes import RoutingRecord
from train.config.run_config import RunConfig


class RoutingProbe:
    """Each rank's first batch of a validation is the fixed batch, so the probe costs no forward pass."""

    def __init__(self, config: RunConfig):
        self._num_experts = config.num_experts
        self.is_needed = bool(config.sparse_layers) and config.router != "hash"
        self._by_hash = 0.0 if config.sparse_layers and config.router == "hash" else None
        self._before: torch.Tensor | None = None
        self._now: torch.Tensor | None = None

    def see(self, records: dict[int, RoutingRecord]) -> None:
        """Keep the routes of the fixed batch, after its forward pass."""
        if self.is_needed:
            self._now = torch.cat([expert_sets(record, self._num_experts) for record in records.values()])

    def fluctuation(self, device: torch.device) -> float | None:
        """The share of tokens, over all layers, whose set of experts changed. Collective over all ranks.

        0 for hashes, whose routes are fixed; None for a dense model and at the first validation.
        """
        before, self._before, self._now = self._before, self._now, None
        if before is None or self._before is None:
            return self._by_hash
        changed = (before != self._before).any(1)
        counts = torch.tensor([changed.sum().item(), len(changed)], dtype=torch.float64, device=device)
        dist.all_reduce(counts, group=dist.get_world_group())
        return (counts[0] / counts[1]).item()


def expert_sets(record: RoutingRecord, num_experts: int) -> torch.Tensor:
    """Whether each token is routed to each expert, bool [T, E]."""
    routes, num_tokens = record.routing.routes, record.num_tokens
    sets_TE = torch.zeros(num_tokens, num_experts, dtype=torch.bool, device=routes.expert_N.device)
    token_N = torch.arange(num_tokens, device=sets_TE.device) if routes.token_N is None else routes.token_N
    sets_TE[token_N, routes.expert_N] = True
    return sets_TE
