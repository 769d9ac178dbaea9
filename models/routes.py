"""Routes: where a router sends tokens, as (token, expert, weight) pairs; and a sparse layer's report on them."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Routes:
    """N pairs over T tokens. A hash router returns one Routes per hash; a learned router's Routing holds one.

    expert_N: expert of each pair, int64 [N]; dispatch plans are made from it alone.
    token_N: token of each pair, int64 [N]; None if pair i is token i (N = T), as in every hash layer.
    weight_N: gate weight that multiplies the expert's output, float [N]; None in hash layers, which have no gate.
    """

    expert_N: torch.Tensor
    token_N: torch.Tensor | None = None
    weight_N: torch.Tensor | None = None


@dataclass(frozen=True)
class Routing:
    """A learned router's decision for one micro-batch; scalars stay on their device.

    routes: the pairs, each with a weight.
    auxiliary_loss: to be added to the loss, with its coefficients applied; None if the router has none.
    num_dropped: tokens that no expert takes.
    entropy: of the router's distribution over the experts, in nats, the mean over all tokens.
    """

    routes: Routes
    auxiliary_loss: torch.Tensor | None
    num_dropped: torch.Tensor
    entropy: torch.Tensor


@dataclass(frozen=True)
class RoutingRecord:
    """A sparse layer's report on one forward pass.

    num_tokens: tokens that the layer was given on this rank.
    tokens_per_expert: how many of them went to each expert, over all hashes, host integers [E].
    routing: the decision of a learned router; None in hash layers, whose routes are fixed.
    """

    num_tokens: int
    tokens_per_expert: list[int]
    routing: Routing | None = None


def add_auxiliary_losses(loss: torch.Tensor, records: dict[int, RoutingRecord]) -> torch.Tensor:
    """The loss plus the auxiliary losses of a model's sparse layers, by the index of their block; hashes have none."""
    for record in records.values():
        if record.routing is not None and record.routing.auxiliary_loss is not None:
            loss = loss + record.routing.auxiliary_loss
    return loss
