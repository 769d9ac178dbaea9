"""GShardRouter: each token to two experts, whose outputs are mixed by their probabilities (Lepikhin et al., 2020).

The rule is that of DeepSpeed's top2gating, which is widely used. The paper's own rule drops an unlikely second expert
at random, keeps the weight of a choice whose partner was dropped, and divides the loss by E^2.
"""

import torch

from .gate import Gate, LearnedRouter
from .router_losses import balance_loss, capacity, entropy, within_capacity, z_loss
from .routes import Routes, Routing


class GShardRouter(LearnedRouter):
    """The likeliest expert and a second one: drawn by its probability in training, the next likeliest otherwise.

    In training with a capacity_factor, an expert takes at most 2 T / E pairs times the factor, all first choices before
    any second one. The two weights sum to 1; if one choice was dropped, they are 1 and 0.
    """

    def __init__(self, config):
        super().__init__()
        self.gate = Gate(config)
        self.capacity_factor = config.capacity_factor
        self.router_aux_loss_coef, self.router_z_loss_coef = config.router_aux_loss_coef, config.router_z_loss_coef

    def route(self, hidden_TD: torch.Tensor, ids_T: torch.Tensor | None) -> Routing:
        logits_TE = self.gate(hidden_TD)
        probs_TE, expert_2T = logits_TE.softmax(1), two_choices(logits_TE, draw_second=self.training)
        loss = self.router_aux_loss_coef * balance_loss(probs_TE, expert_2T[0])
        loss = loss + self.router_z_loss_coef * z_loss(logits_TE)
        routes = two_routes(probs_TE, expert_2T, capacity_factor=self.capacity_factor if self.training else None)
        is_taken_T = torch.zeros_like(expert_2T[0], dtype=torch.bool).index_fill(0, routes.token_N, True)
        return Routing(routes, loss, (~is_taken_T).sum(), entropy(logits_TE))


def two_choices(logits_TE: torch.Tensor, *, draw_second: bool) -> torch.Tensor:
    """The first and second expert of each token, int64 [2, T]."""
    logits_TE = logits_TE.detach()
    first_T = logits_TE.argmax(1)
    others_TE = logits_TE.scatter(1, first_T.unsqueeze(1), -torch.inf)
    if draw_second:  # the largest of logits with Gumbel noise is a draw from their softmax
        others_TE = others_TE - torch.empty_like(others_TE).exponential_().log()
    return torch.stack([first_T, others_TE.argmax(1)])


def two_routes(probs_TE: torch.Tensor, expert_2T: torch.Tensor, *, capacity_factor: float | None) -> Routes:
    """The pairs that experts take, first choices before second ones; the weights of a token's pairs sum to 1."""
    num_tokens, num_experts = probs_TE.shape
    expert_N, token_N = expert_2T.flatten(), torch.arange(num_tokens, device=expert_2T.device).repeat(2)
    limit = capacity(2 * num_tokens, num_experts, capacity_factor)
    is_taken_2T = within_capacity(expert_N, num_experts, limit).view(2, num_tokens)
    weight_2T = probs_TE.gather(1, expert_2T.T).T * is_taken_2T
    weight_2T = weight_2T / weight_2T.sum(0).clamp(min=torch.finfo(weight_2T.dtype).eps)
    (kept_N,) = is_taken_2T.flatten().nonzero(as_tuple=True)
    return Routes(expert_N[kept_N], token_N[kept_N], weight_2T.flatten()[kept_N])
