"""HashGPT: transformers' GPT-2 with hash layers that replace, or stand between, some of its feed-forwards.

Layers with learned routers, the baselines of hash layers, take the same places (models/learned_ffn.py).
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import create_causal_mask, packed_sequence_mask_function
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithCrossAttentions
from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel, GPT2Model, GPT2PreTrainedModel
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .block import HashGPTBlock
from .configuration_hash_gpt import HashGPTConfig
from .dispatch import DispatchPlan
from .experts import Experts
from .gate import Gate
from .hash_keys import TokenContext, previous_tokens, token_context
from .output_matrix import OutputMatrix
from .positions import SinusoidalPositions
from .router_expert_choice import NOT_CAUSAL
from .router_hash import UNSET, HashRouter
from .router_token_switch import TokenVectors
from .routes import RoutingRecord
from .sparse_ffn import SparseFFN


class HashGPTPreTrainedModel(GPT2PreTrainedModel):
    config_class = HashGPTConfig
    base_model_prefix = "transformer"
    _no_split_modules = ["HashGPTBlock"]
    # transformers collects these outputs during a forward pass; "routing" is the second output of a sparse layer.
    _can_record_outputs = {
        **GPT2PreTrainedModel._can_record_outputs,
        "hidden_states": HashGPTBlock,
        "routing": SparseFFN,
    }

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, Experts):
            module.initialize(dict(module.named_parameters()))
        elif isinstance(module, Gate | TokenVectors):
            module.initialize()
        elif isinstance(module, HashRouter):
            for table in module.buffers():
                init.constant_(table, UNSET)
        elif isinstance(module, SinusoidalPositions):
            init.copy_(module.table, module.values())

    def activation_checkpointing_enable(self, activation_checkpointing_kwargs=None, **options):
        """Like transformers' own, but refused if the gradient of the routers' auxiliary losses would not survive it."""
        kwargs = activation_checkpointing_kwargs or {"use_reentrant": False}
        if self.config.router != "hash" and kwargs.get("use_reentrant") is not False:  # torch takes None for True
            raise ValueError(
                f"use_reentrant={kwargs.get('use_reentrant')} would lose the gradient of router="
                f"{self.config.router!r}'s losses, which leave a block beside its output; set use_reentrant=False"
            )
        if self.config.router != "hash" and not kwargs.get("preserve_rng_state", True):
            raise ValueError(
                f"preserve_rng_state=False would let router={self.config.router!r} draw other routes when a block is "
                "recomputed; omit it"
            )
        super().activation_checkpointing_enable(activation_checkpointing_kwargs, **options)


class HashGPTModel(HashGPTPreTrainedModel, GPT2Model):
    """The decoder stack: embeddings, blocks, final norm."""

    def __init__(self, config: HashGPTConfig):
        GPT2PreTrainedModel.__init__(self, config)  # not GPT2Model's: it would build the dense blocks first
        self.embed_dim = config.hidden_size
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.position_embedding == "sinusoidal":
            self.wpe = SinusoidalPositions(
                config.max_position_embeddings, config.hidden_size, std=config.initializer_range
            )
        else:
            self.wpe = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(HashGPTBlock(config, layer_idx=i) for i in range(config.num_hidden_layers))
        self.ln_f = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.gradient_checkpointing = False
        self._attn_implementation = config._attn_implementation
        self.post_init()

    @property
    def sparse_ffns(self) -> dict[int, SparseFFN]:
        """The sparse layers by the index of their block."""
        return {layer: self.h[layer].sparse_ffn for layer in self.config.sparse_layers}

    def plan(self, input_ids: torch.Tensor | None, **known) -> dict[int, list[DispatchPlan]]:
        """The plans of all sparse layers, from token ids [B, S] alone: no hidden state is needed.

        known: other arguments of models/hash_keys.py's token_context(). A layer whose router learns has no plan here:
        it plans in the forward pass.
        """
        context = self.token_context(input_ids, **known) if self.config.hash_keys else None
        return {layer: sparse_ffn.plan(context) for layer, sparse_ffn in self.sparse_ffns.items()}

    def token_context(self, input_ids: torch.Tensor, *, num_cached: int = 0, **known) -> TokenContext:
        """The context that hashes may read; see the function of this name in models/hash_keys.py.

        ValueError if a hash needs tokens that are in the cache only.
        """
        looks_back = {"previous", "bigram"} & set(self.config.hash_keys) or self.config.split_sizes
        if num_cached and looks_back and known.get("previous_ids") is None:
            raise ValueError(
                f"{num_cached} tokens are in the cache, where this model's hashes cannot see them: call "
                "generate(), or pass previous_ids, the token before each of input_ids"
            )
        return token_context(input_ids, none=self.config.hash_vocab_size, num_cached=num_cached, **known)

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        past_key_values=None,
        attention_mask=None,
        *,
        position_ids=None,
        plans: dict[int, list[DispatchPlan]] | None = None,
        previous_ids=None,
        next_ids=None,
        predicted_ids=None,
        **kwargs,
    ):
        """Like GPT2Model; the outputs also have a field `routing`, the RoutingRecord of each sparse layer by its block.

        plans: made here unless the caller made them ahead; outside the blocks, so that activation checkpointing
        recomputes with the same ones. previous_ids, next_ids, predicted_ids [B, S]: see models/hash_keys.py. Without a
        mask or a cache, position_ids that restart at 0 within a sequence pack several documents into it, which do not
        see each other.
        """
        if input_ids is None and self.config.routes_by_ids:
            raise ValueError(
                "hash layers and token_switch route by token ids, which inputs_embeds does not contain: pass "
                "input_ids, or use a model with sparse_layers=[]"
            )
        if plans is None:
            plans = self.plan(
                None if input_ids is None else input_ids.view(-1, input_ids.shape[-1]),
                attention_mask=attention_mask,
                position_ids=position_ids,
                num_cached=past_key_values.get_seq_length() if past_key_values is not None else 0,
                previous_ids=previous_ids,
                next_ids=next_ids,
                predicted_ids=predicted_ids,
            )
        is_new = attention_mask is None and past_key_values is None
        if is_new and kwargs.get("use_cache") is not False and _is_packed(position_ids):
            kwargs["use_cache"] = False  # documents are kept apart without a cache only
        outputs = self._apply_blocks(
            input_ids, past_key_values, attention_mask, position_ids=position_ids, plans=plans, output_routing=True,
            return_dict=True, **kwargs,
        )  # fmt: skip
        outputs["routing"] = dict(zip(sorted(self.config.sparse_layers), outputs["routing"], strict=True))
        return outputs

    @merge_with_config_defaults
    @capture_outputs
    def _apply_blocks(
        self, input_ids, past_key_values, attention_mask, *, position_ids, inputs_embeds=None, use_cache=None, **kwargs
    ):
        """GPT2Model.forward, which looks at the positions on the host, and so would wait for the device."""
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if inputs_embeds is None:
            inputs_embeds = self.wte(input_ids)
        mask = self._attention_mask(inputs_embeds, attention_mask, past_key_values, position_ids)
        if position_ids is None:
            num_cached = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device).unsqueeze(0) + num_cached
        hidden_BSD = self.drop(inputs_embeds + self.wpe(position_ids))
        cache = None if self.gradient_checkpointing and self.training else past_key_values
        for block in self.h:
            hidden_BSD = block(
                hidden_BSD, cache, mask, use_cache=use_cache, position_ids=position_ids, token_ids=input_ids, **kwargs
            )
        return BaseModelOutputWithPast(self.ln_f(hidden_BSD), past_key_values if use_cache else None)

    def _attention_mask(self, embeddings_BSD, attention_mask, past_key_values, position_ids):
        """None for plain causal attention where the implementation needs no mask for it."""
        documents = None
        if position_ids is not None and attention_mask is None and past_key_values is None:
            document_BS = (position_ids == 0).cumsum(-1).expand(embeddings_BSD.shape[:2])
            documents = packed_sequence_mask_function(document_BS)
        return create_causal_mask(
            self.config, embeddings_BSD, attention_mask, past_key_values, and_mask_function=documents
        )


def _is_packed(position_ids: torch.Tensor | None) -> bool:
    return position_ids is not None and bool((position_ids[:, 1:] == 0).any())


@dataclass
class HashGPTOutput(CausalLMOutputWithCrossAttentions):
    """Like GPT2LMHeadModel's.

    routing: the RoutingRecord of each sparse layer, by the index of its block.
    token_losses: the cross-entropy of each token, float32 [B, S], without gradient, if targets were given.
    """

    token_losses: torch.Tensor | None = None
    routing: dict[int, RoutingRecord] | None = None


class HashGPTForCausalLM(HashGPTPreTrainedModel, GPT2LMHeadModel):
    """The language model: HashGPTModel and an output matrix tied to the token embeddings.

    The loss of labels is the cross-entropy alone. To train learned routers further, add their own losses to it:
    models/routes.py's add_auxiliary_losses(outputs.loss, outputs.routing).
    """

    def __init__(self, config: HashGPTConfig):
        GPT2PreTrainedModel.__init__(self, config)
        self.transformer = HashGPTModel(config)
        self.lm_head = OutputMatrix(config.hidden_size, config.vocab_size)
        self.predictor = None
        self.post_init()

    def set_predictor(self, baseline: nn.Module) -> None:
        """Set the causal model whose arg-max predicted-future hashes route by in generation; it is not saved."""
        object.__setattr__(self, "predictor", baseline)  # not a submodule

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        past_key_values=None,
        attention_mask=None,
        *,
        position_ids=None,  # named here, because generate() makes them from the mask only if forward() names them
        labels=None,
        targets=None,
        next_ids=None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> HashGPTOutput:
        """Like GPT2LMHeadModel. Oracle-future hashes take next_ids [B, S], or derive them from the labels.

        targets [B, S]: the token that follows each of input_ids (labels are the ids themselves), or -100. The loss is
        then made without logits, and these are None (models/output_matrix.py).
        """
        if labels is not None and targets is not None:
            raise ValueError("got labels and targets; give labels, the ids, or targets, the ids that follow them")
        if next_ids is None and labels is not None and "next" in self.config.hash_keys:
            # The last token has no label, so its route bears on no loss. Ignored labels (-100) count as token 0.
            next_ids = nn.functional.pad(labels[:, 1:], (0, 1)).clamp(min=0)
        outputs = self.transformer(
            input_ids, past_key_values, attention_mask,
            position_ids=position_ids, next_ids=next_ids, return_dict=True, **kwargs,
        )  # fmt: skip
        logits = loss = token_losses = None
        if targets is not None:
            loss, token_losses = self.lm_head(outputs.last_hidden_state, targets)
        else:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(outputs.last_hidden_state[:, kept])
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
        return HashGPTOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            routing=outputs["routing"],
            token_losses=token_losses,
        )

    def prepare_inputs_for_generation(self, input_ids, *args, attention_mask=None, **kwargs):
        """Add the ids that hashes need of tokens already in the cache: only here all of them are available."""
        if self.config.sparse_layers and self.config.router == "expert_choice":
            raise ValueError(NOT_CAUSAL)
        inputs = super().prepare_inputs_for_generation(input_ids, *args, attention_mask=attention_mask, **kwargs)
        length = inputs["input_ids"].shape[1]
        previous = previous_tokens(input_ids, attention_mask, none=self.config.hash_vocab_size)
        inputs["previous_ids"] = previous[:, -length:]
        if "predicted" in self.config.hash_keys and self.predictor is not None:
            predicted = self.predictor(input_ids, attention_mask=attention_mask).logits.argmax(-1)
            inputs["predicted_ids"] = predicted[:, -length:]
        return inputs

    @property
    def routers(self) -> list[nn.Module]:
        """The routers of all sparse layers, in the order of config.sparse_layers."""
        return [sparse_ffn.router for sparse_ffn in self.transformer.sparse_ffns.values()]

    @property
    def hash_routers(self) -> list[HashRouter]:
        """The routers if they are hashes, else []: learned routers have no tables."""
        return self.routers if self.config.router == "hash" else []

    def set_route_tables(self, tables: list[dict[str, torch.Tensor]] | torch.Tensor) -> None:
        """Set the tables of every sparse layer and record their digests in the config.

        tables: integers [layers, keys, hashes], or one dict of HashRouter's buffers per layer. A single table for
        several layers is refused: to share it, repeat it.
        """
        if self.config.router != "hash":
            raise ValueError(f"router={self.config.router!r} learns its routes and takes no route tables")
        if len(tables) != len(self.hash_routers):
            raise ValueError(
                f"{len(tables)} route tables for {len(self.hash_routers)} sparse layers "
                f"{self.config.sparse_layers}: build one table per layer, or repeat one table to share it"
            )
        for router, table in zip(self.hash_routers, tables, strict=True):
            router.set_table(**table) if isinstance(table, dict) else router.set_table(table)
        self._record_digests()

    def resize_token_embeddings(self, new_num_tokens=None, pad_to_multiple_of=None, mean_resizing=True):
        """Resize the embeddings and, with them, every route table and the token vectors of learned routers."""
        embeddings = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        for router in self.routers:
            router.resize(len(embeddings.weight))
        self._record_digests()
        return embeddings

    def _get_resized_lm_head(self, *args, **kwargs) -> OutputMatrix:
        resized = super()._get_resized_lm_head(*args, **kwargs)
        head = OutputMatrix(resized.in_features, resized.out_features, device="meta")
        head.weight = resized.weight
        return head

    def _record_digests(self) -> None:
        self.config.route_table_digests = [router.layer_digest for router in self.hash_routers] or None


HashGPTModel.register_for_auto_class("AutoModel")
HashGPTForCausalLM.register_for_auto_class("AutoModelForCausalLM")
