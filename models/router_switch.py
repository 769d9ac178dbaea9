"""SwitchRouter: each token to the expert of highest probability for its hidden state (Fedus et al., 2021)."""

import torch

from .gate import Gate, LearnedRouter
from .router_losses import balance_loss, capacity, entropy, within_capacity, z_loss
from .routes import Routes, Routing


class SwitchRouter(LearnedRouter):
    """Top-1 of a softmax, whose probability multiplies the expert's output, with a loss that balances the experts.

    In training, a full expert drops later tokens if the configuration sets a capacity_factor, and router_jitter_noise
    perturbs the gate's input. Evaluation does neither, so that a route depends on its token alone.
    """

    def __init__(self, config):
        super().__init__()
        self.gate = Gate(config, bias=True)
        self.num_experts, self.capacity_factor = config.num_experts, config.capacity_factor
        self.router_aux_loss_coef, self.router_z_loss_coef = config.router_aux_loss_coef, config.router_z_loss_coef
        self.router_jitter_noise = config.router_jitter_noise

    def route(self, hidden_TD: torch.Tensor, ids_T: torch.Tensor | None) -> Routing:
        logits_TE = self.gate(self._jittered(self.vectors(hidden_TD, ids_T)))
        probs_TE = logits_TE.softmax(1)
        weight_T, expert_T = probs_TE.max(1)
        loss = self.router_aux_loss_coef * balance_loss(probs_TE, expert_T)
        loss = loss + self.router_z_loss_coef * z_loss(logits_TE)
        routes, num_dropped = self._dropped(Routes(expert_T, None, weight_T))
        return Routing(routes, loss, num_dropped, entropy(logits_TE))

    def vectors(self, hidden_TD: torch.Tensor, ids_T: torch.Tensor | None) -> torch.Tensor:
        """The gate's input for each token [T, D]."""
        return hidden_TD

    def _jittered(self, vectors_TD: torch.Tensor) -> torch.Tensor:
        epsilon = self.router_jitter_noise
        if not self.training or epsilon == 0:
            return vectors_TD
        noise = torch.empty_like(vectors_TD, dtype=torch.float32).uniform_(1 - epsilon, 1 + epsilon)
        return vectors_TD * noise

    def _dropped(self, routes: Routes) -> tuple[Routes, torch.Tensor]:
        """The routes that experts have capacity for, and the number of dropped ones."""
        none = routes.expert_N.new_zeros(())
        if not self.training or self.capacity_factor is None:
            return routes, none
        limit = capacity(len(routes.expert_N), self.num_experts, self.capacity_factor)
        (token_N,) = within_capacity(routes.expert_N, self.num_experts, limit).nonzero(as_tuple=True)
        num_dropped = none + len(routes.expert_N) - len(token_N)
        return Routes(routes.expert_N[token_N], token_N, routes.weight_N[token_N]), num_dropped
