"""BaseRouter: in training, the same number of tokens to every expert, each to one that fits (Lewis et al., 2021)."""

import torch

from .auction import balanced_assignment
from .gate import Gate, LearnedRouter
from .router_losses import entropy
from .routes import Routes, Routing


class BaseRouter(LearnedRouter):
    """Training solves a balanced assignment of the tokens; evaluation gives each token its best expert.

    The sigmoid of a token's score weighs its expert's output, and gives the gate its gradient. In training, ranks that
    share the experts shuffle their tokens first: train/parallel/token_shuffle.py.
    """

    def __init__(self, config):
        super().__init__()
        self.gate = Gate(config, orthogonal=True)

    def route(self, hidden_TD: torch.Tensor, ids_T: torch.Tensor | None) -> Routing:
        logits_TE = self.gate(hidden_TD)
        scores_TE = logits_TE.detach()
        expert_T = balanced_assignment(scores_TE) if self.training else scores_TE.argmax(1)
        weight_T = logits_TE.gather(1, expert_T.unsqueeze(1)).squeeze(1).sigmoid()
        return Routing(Routes(expert_T, None, weight_T), None, expert_T.new_zeros(()), entropy(logits_TE))
