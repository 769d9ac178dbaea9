"""ExpertChoiceRouter: each expert takes the tokens that fit it best (Zhou et al., 2022), which is not causal.

The choice depends on all tokens of the micro-batch, later ones included. In generation these are unknown: the model
cannot generate, and its perplexity is not comparable with that of other routers.
"""

import torch
from transformers.utils import logging

from .capped_choice import capped_choice
from .gate import Gate, LearnedRouter
from .router_losses import entropy
from .routes import Routes, Routing

logger = logging.get_logger(__name__)
NOT_CAUSAL = (
    "expert_choice routes by all tokens of a batch, including those to be predicted: its perplexity is not "
    "comparable with that of other routers, and it cannot generate"
)


class ExpertChoiceRouter(LearnedRouter):
    """Every expert takes the T * capacity_factor / E tokens of highest probability, and weighs them by it.

    With expert_choice_cap, no token goes to more experts than that. Each expert then takes its best tokens under this
    condition, and slightly fewer if the conditions are met only approximately.
    """

    def __init__(self, config):
        super().__init__()
        self.gate = Gate(config)
        self.num_experts, self.cap, self.factor = (
            config.num_experts,
            config.expert_choice_cap,
            config.num_experts_per_tok,
        )

    def route(self, hidden_TD: torch.Tensor, ids_T: torch.Tensor | None) -> Routing:
        if not self.training:
            logger.warning_once(NOT_CAUSAL)
        logits_TE = self.gate(hidden_TD)
        probs_TE = logits_TE.softmax(1)
        is_chosen_ET = self._choose(probs_TE.detach().T)
        expert_N, token_N = is_chosen_ET.nonzero(as_tuple=True)
        routes = Routes(expert_N, token_N, probs_TE[token_N, expert_N])
        return Routing(routes, None, (~is_chosen_ET.any(0)).sum(), entropy(logits_TE))

    def _choose(self, affinity_ET: torch.Tensor) -> torch.Tensor:
        """Whether an expert takes a token, bool [E, T]."""
        num_tokens = affinity_ET.shape[1]
        wanted = min(num_tokens, max(1, int(num_tokens * self.factor / self.num_experts)))
        if not self.cap or self.cap >= self.num_experts:
            return _largest(affinity_ET, wanted, dim=1)
        wish_ET = capped_choice(affinity_ET, tokens_per_expert=wanted, cap=self.cap)
        is_chosen_ET = _largest(wish_ET, wanted, dim=1)
        return is_chosen_ET & _largest(wish_ET.where(is_chosen_ET, -1), self.cap, dim=0)


def _largest(values_ET: torch.Tensor, number: int, *, dim: int) -> torch.Tensor:
    """Whether each value is among the `number` largest along a dimension."""
    largest = values_ET.topk(number, dim=dim).indices
    return torch.zeros_like(values_ET, dtype=torch.bool).scatter(dim, largest, True)
