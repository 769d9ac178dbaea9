"""Gate: the scores of every expert for every token, in at least float32; and LearnedRouter, which chooses by them."""

import torch
from torch import nn
from transformers import initialization as init

from .routes import Routing


class Gate(nn.Module):
    """Logits [T, E] = vectors [T, D] @ weight [E, D] + bias [E]."""

    def __init__(self, config, *, bias: bool = False, orthogonal: bool = False):
        """orthogonal: initialise as orthogonal rows of length 0.1, the centroids of BASE layers."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        self.bias = nn.Parameter(torch.empty(config.num_experts)) if bias else None
        self.std, self.orthogonal = config.initializer_range, orthogonal

    def forward(self, vectors_TD: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else at_least_float32(self.bias)
        return nn.functional.linear(at_least_float32(vectors_TD), at_least_float32(self.weight), bias)

    def initialize(self) -> None:
        if self.orthogonal:
            init.orthogonal_(self.weight, gain=0.1)
        else:
            init.normal_(self.weight, std=self.std)
        if self.bias is not None:
            init.zeros_(self.bias)


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class LearnedRouter(nn.Module):
    """A gate, and a rule that chooses experts by its scores: each subclass defines it in route().

    route() is not forward(): ZeRO 3 tracks modules by the tensors that enter and leave them, and a Routing is not one.
    """

    gate: Gate

    def route(self, hidden_TD: torch.Tensor, ids_T: torch.Tensor | None) -> Routing:
        """The Routing of tokens [T, D] with ids [T]; most routers read only the hidden states."""
        raise NotImplementedError

    def resize(self, vocab_size: int) -> None:
        """Adapt to another vocabulary; most routers do not depend on it."""
