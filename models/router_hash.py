"""HashRouter: a fixed table sends each token id to one expert (Roller et al., 2021, section 3.1)."""

import hashlib

import torch
from torch import nn

from .routes import Routes

UNSET = -1  # not 0: an unset table must fail in the first batch, not send every token to expert 0


class HashRouter(nn.Module):
    """Owns `route_table`, int32 [V, 1], a persistent buffer that travels with the weights."""

    def __init__(self, config):
        super().__init__()
        self.num_experts = config.num_experts
        self.register_buffer("route_table", torch.full((config.vocab_size, 1), UNSET, dtype=torch.int32))
        self._checked = None

    def forward(self, input_ids: torch.Tensor) -> Routes:
        """input_ids [B, S] -> routes of T = B * S tokens. ValueError while the table is unset or out of range."""
        self._check_table_once()
        return Routes(expert_N=self.route_table[input_ids.reshape(-1), 0].long())

    def set_table(self, table: torch.Tensor) -> None:
        """Copy a table of integers [V, 1]; ValueError naming both shapes where it does not fit."""
        if tuple(table.shape) != tuple(self.route_table.shape):
            raise ValueError(
                f"route table has shape {tuple(table.shape)} but the model needs {tuple(self.route_table.shape)} "
                "(vocabulary, hashes); build the table with the model's vocabulary size"
            )
        self.route_table.copy_(table)
        self._check_table_once()

    def resize(self, vocab_size: int) -> None:
        """Cut the table, or extend it: new tokens go round the experts, least used by the vocabulary first."""
        table = self.route_table[:vocab_size]
        num_new = vocab_size - len(table)
        if num_new > 0 and self.is_set:
            tokens_E = torch.bincount(table.flatten().long(), minlength=self.num_experts)
            by_use = tokens_E.argsort(stable=True)
            new = by_use[torch.arange(num_new, device=table.device) % self.num_experts]
        else:
            new = table.new_full((max(num_new, 0),), UNSET)
        self.route_table = torch.cat([table, new.to(table.dtype).unsqueeze(1)])

    @property
    def is_set(self) -> bool:
        return bool((self.route_table >= 0).all())

    @property
    def digest(self) -> str:
        """sha256 of the shape as text, a newline and the little-endian int32 values, as route-table files count it."""
        table = self.route_table.detach().cpu().contiguous().numpy().astype("<i4")
        shape = ",".join(str(size) for size in table.shape)
        return "sha256:" + hashlib.sha256(f"{shape}\n".encode() + table.tobytes()).hexdigest()

    def _check_table_once(self) -> None:
        # Reading the table back is a device synchronisation, so it happens once per change of its contents.
        version = 0 if self.route_table.is_inference() else self.route_table._version
        state = (self.route_table.data_ptr(), version)
        if state == self._checked:
            return
        low, high = int(self.route_table.min()), int(self.route_table.max())
        if low < 0:
            raise ValueError(
                "the route table is not set (it holds -1): build one with `python -m data_prep.build_table` and "
                "call model.set_route_tables(), or load a trained checkpoint"
            )
        if high >= self.num_experts:
            raise ValueError(f"the route table names expert {high} but the layer has {self.num_experts} experts")
        self._checked = state
