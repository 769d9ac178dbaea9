"""Routes: the one value that every router returns, a list of (token, expert, weight) pairs."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Routes:
    """N routed pairs over T tokens; hash layers route every token once and need only `expert_N`.

    expert_N: expert of each pair, int64 [N].
    token_N: token of each pair, int64 [N]; None when pair i is token i (N = T).
    weight_N: gate weight that multiplies the expert's output, float [N]; None when there is no gate.
    """

    expert_N: torch.Tensor
    token_N: torch.Tensor | None = None
    weight_N: torch.Tensor | None = None


@dataclass(frozen=True)
class Routing:
    """What a learned router says of one micro-batch; scalars stay on their device.

    routes: the pairs, each with a weight.
    auxiliary_loss: to be added to the loss, multiplied by its coefficients already; None where there is none.
    num_dropped: tokens that no expert takes.
    entropy: of the router's distribution over the experts, in nats, the mean of all tokens.
    """

    routes: Routes
    auxiliary_loss: torch.Tensor | None
    num_dropped: torch.Tensor
    entropy: torch.Tensor
