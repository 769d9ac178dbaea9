"""SinusoidalPositions: position embeddings without parameters (Vaswani et al., 2017), as in fairseq."""

import math

import torch
from torch import nn


class SinusoidalPositions(nn.Module):
    """Looks up position ids [B, S] in a fixed table [positions, D]: sines in the first half, cosines in the second.

    The root mean square is that of the token embeddings at initialisation, the ratio that fairseq obtains by scaling
    token embeddings with sqrt(D); at amplitude 1, positions would drown tokens of scale 0.02.
    """

    def __init__(self, num_positions: int, hidden_size: int, *, std: float):
        super().__init__()
        self.std = std
        self.register_buffer("table", torch.empty(num_positions, hidden_size), persistent=False)

    def values(self) -> torch.Tensor:
        """The table in float32 [positions, D]; an odd last column is zero."""
        num_positions, hidden_size = self.table.shape
        half = hidden_size // 2
        frequency = torch.exp(torch.arange(half) * (-math.log(10_000) / max(half - 1, 1)))
        angle = torch.arange(num_positions).unsqueeze(1) * frequency
        waves = torch.cat([angle.sin(), angle.cos()], dim=1) * (self.std * math.sqrt(2))
        return nn.functional.pad(waves, (0, hidden_size - 2 * half))

    def forward(self, position_ids: torch.Tensor) -> torch.Tensor:
        return self.table[position_ids]
