"""HashGPT: transformers' GPT-2, in which the feed-forwards of chosen blocks are hash layers."""

import math

import torch
from torch import nn
from transformers import initialization as init
from transformers.models.gpt2.modeling_gpt2 import GPT2Block, GPT2LMHeadModel, GPT2Model, GPT2PreTrainedModel

from .configuration_hash_gpt import HashGPTConfig
from .dispatch import Plan
from .experts import Experts
from .positions import SinusoidalPositions
from .router_hash import UNSET, HashRouter
from .sparse_ffn import SparseFFN


class HashGPTBlock(GPT2Block):
    """GPT-2's block, whose feed-forward receives the plan of its layer where it is sparse."""

    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx=layer_idx)
        self.layer_idx = layer_idx
        self.is_sparse = layer_idx in config.sparse_layers
        if self.is_sparse:
            self.mlp = SparseFFN(config)

    def forward(
        self,
        hidden_states,
        past_key_values=None,
        attention_mask=None,
        encoder_hidden_states=None,  # GPT2Model passes it by position; there is no cross-attention here
        *,
        plans: dict[int, Plan],
        **kwargs,
    ):
        attended, _ = self.attn(
            self.ln_1(hidden_states), past_key_values=past_key_values, attention_mask=attention_mask, **kwargs
        )
        hidden_states = hidden_states + attended
        normed = self.ln_2(hidden_states)
        feed_forward = self.mlp(normed, plans[self.layer_idx]) if self.is_sparse else self.mlp(normed)
        return hidden_states + feed_forward


class HashGPTPreTrainedModel(GPT2PreTrainedModel):
    config_class = HashGPTConfig
    base_model_prefix = "transformer"
    _no_split_modules = ["HashGPTBlock"]
    _can_record_outputs = {**GPT2PreTrainedModel._can_record_outputs, "hidden_states": HashGPTBlock}

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, Experts):
            self.init_expert(module.up_proj, module.up_proj_bias, module.down_proj, module.down_proj_bias)
        elif isinstance(module, HashRouter):
            init.constant_(module.route_table, UNSET)
        elif isinstance(module, SinusoidalPositions):
            init.copy_(module.table, module.values())

    def init_expert(self, up_proj, up_proj_bias, down_proj, down_proj_bias) -> None:
        """Draw the weights of one expert, or of a stack of them, as GPT-2 draws its feed-forward's."""
        std = self.config.initializer_range
        init.normal_(up_proj, std=std)
        # GPT-2 scales the last matrix of each residual branch by 1 / sqrt(number of branches).
        init.normal_(down_proj, std=std / math.sqrt(2 * self.config.n_layer))
        init.zeros_(up_proj_bias)
        init.zeros_(down_proj_bias)


class HashGPTModel(HashGPTPreTrainedModel, GPT2Model):
    """The decoder stack: embeddings, blocks, final norm."""

    def __init__(self, config: HashGPTConfig):
        GPT2PreTrainedModel.__init__(self, config)  # not GPT2Model's: it would build the dense blocks first
        self.embed_dim = config.n_embd
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        if config.position_embedding == "sinusoidal":
            self.wpe = SinusoidalPositions(config.n_positions, config.n_embd, std=config.initializer_range)
        else:
            self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(HashGPTBlock(config, layer_idx=i) for i in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.gradient_checkpointing = False
        self._attn_implementation = config._attn_implementation
        self.post_init()

    def plan(self, input_ids: torch.Tensor) -> dict[int, Plan]:
        """The plans of all sparse layers, from token ids [B, S] alone: no hidden state is needed."""
        return {layer: self.h[layer].mlp.plan(input_ids) for layer in self.config.sparse_layers}

    def forward(self, input_ids=None, *args, plans: dict[int, Plan] | None = None, **kwargs):
        """As GPT2Model; `plans` are made here unless the caller made them ahead.

        Plans are made outside the blocks, so that activation checkpointing recomputes with the same ones.
        """
        if input_ids is None and self.config.sparse_layers:
            raise ValueError(
                "hash layers route by token ids, and inputs_embeds does not tell them: pass input_ids, "
                "or use a model with sparse_layers=[]"
            )
        if plans is None:
            plans = self.plan(input_ids) if self.config.sparse_layers else {}
        return GPT2Model.forward(self, input_ids, *args, plans=plans, **kwargs)


class HashGPTForCausalLM(HashGPTPreTrainedModel, GPT2LMHeadModel):
    """The language model: HashGPTModel and an output matrix tied to the token embeddings."""

    def __init__(self, config: HashGPTConfig):
        GPT2PreTrainedModel.__init__(self, config)
        self.transformer = HashGPTModel(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.post_init()

    @property
    def hash_routers(self) -> list[HashRouter]:
        """The routers in the order of config.sparse_layers."""
        return [self.transformer.h[layer].mlp.router for layer in self.config.sparse_layers]

    def set_route_tables(self, tables_LVM: torch.Tensor) -> None:
        """Set the table of every sparse layer from integers [layers, V, 1] and record their digests in the config.

        A single table for several layers is refused: pass tables.expand(layers, -1, -1) to share one.
        """
        if len(tables_LVM) != len(self.hash_routers):
            raise ValueError(
                f"{len(tables_LVM)} route tables for {len(self.hash_routers)} sparse layers "
                f"{self.config.sparse_layers}: build one table per layer, or share one table on purpose"
            )
        for router, table in zip(self.hash_routers, tables_LVM, strict=True):
            router.set_table(table)
        self._record_digests()

    def resize_token_embeddings(self, new_num_tokens=None, pad_to_multiple_of=None, mean_resizing=True):
        """Resize the embeddings and, with them, every route table."""
        embeddings = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        if len(embeddings.weight) != (len(self.hash_routers[0].route_table) if self.hash_routers else None):
            for router in self.hash_routers:
                router.resize(len(embeddings.weight))
            self._record_digests()
        return embeddings

    def _record_digests(self) -> None:
        self.config.route_table_digests = [router.digest for router in self.hash_routers]


HashGPTModel.register_for_auto_class("AutoModel")
HashGPTForCausalLM.register_for_auto_class("AutoModelForCausalLM")
