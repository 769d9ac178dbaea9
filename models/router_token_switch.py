"""TokenSwitchRouter: Switch that routes by the token itself instead of its hidden state (paper, section 5.3.3)."""

import torch
from torch import nn
from transformers import initialization as init

from .router_switch import SwitchRouter


class TokenSwitchRouter(SwitchRouter):
    """The gate reads a learned vector of the token's id, used for nothing else: a hash that is learned."""

    def __init__(self, config):
        super().__init__(config)
        self.token_vectors = TokenVectors(config.vocab_size, config.hidden_size)

    def vectors(self, hidden_TD: torch.Tensor, ids_T: torch.Tensor | None) -> torch.Tensor:
        return self.token_vectors(ids_T)

    def resize(self, vocab_size: int) -> None:
        """Cut the vectors, or add copies of their mean."""
        weight = self.token_vectors.weight.data
        new = weight.mean(0, keepdim=True).expand(max(vocab_size - len(weight), 0), -1)
        self.token_vectors.weight.data = torch.cat([weight[:vocab_size], new])
        self.token_vectors.num_embeddings = vocab_size


class TokenVectors(nn.Embedding):
    """Initialised with variance 1, that of the normalised hidden states which Switch reads."""

    def initialize(self) -> None:
        init.normal_(self.weight, std=1.0)
