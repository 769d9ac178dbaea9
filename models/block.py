"""HashGPTBlock: GPT-2's block, in which a sparse layer replaces the feed-forward or stands before the attention."""

import torch
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from .dispatch import DispatchPlan
from .learned_ffn import make_sparse_ffn
from .sparse_ffn import SparseFFN


class HashGPTBlock(GPT2Block):
    """GPT-2's block, with a sparse layer as its feed-forward or before it if the configuration says so."""

    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx=layer_idx)
        self.layer_idx = layer_idx
        self.is_sparse = layer_idx in config.sparse_layers
        self.is_inserted = self.is_sparse and config.placement == "insert"
        if self.is_inserted:
            self.sparse = make_sparse_ffn(config, config.sparse_layers.index(layer_idx))
        elif self.is_sparse:
            self.mlp = make_sparse_ffn(config, config.sparse_layers.index(layer_idx))

    @property
    def sparse_ffn(self) -> SparseFFN:
        """The sparse layer of a sparse block."""
        return self.sparse if self.is_inserted else self.mlp

    def forward(
        self,
        hidden_states,
        past_key_values=None,
        attention_mask=None,
        *,
        plans: dict[int, list[DispatchPlan]],
        token_ids: torch.Tensor | None,
        **kwargs,
    ):
        if self.is_inserted:
            hidden_states, _ = self.sparse(hidden_states, plans[self.layer_idx], token_ids)
        attended, _ = self.attn(
            self.ln_1(hidden_states), past_key_values=past_key_values, attention_mask=attention_mask, **kwargs
        )
        hidden_states = hidden_states + attended
        normed = self.ln_2(hidden_states)
        if self.is_sparse and not self.is_inserted:
            feed_forward, _ = self.mlp(normed, plans[self.layer_idx], token_ids)
        else:
            feed_forward = self.mlp(normed)
        return hidden_states + feed_forward
