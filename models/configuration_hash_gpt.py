"""HashGPTConfig: GPT-2's configuration plus the sparse layers, their routing and their experts."""

import math
from dataclasses import field

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .choices import HASH_KEYS, PLACEMENTS, POSITION_EMBEDDINGS, ROUTER_DEFAULTS, ROUTERS


@strict
class HashGPTConfig(PreTrainedConfig):
    r"""Configuration of a GPT-2 with hash layers (Roller et al., 2021); the defaults are GPT-2 itself.

    Args:
        vocab_size, max_position_embeddings, hidden_size, num_hidden_layers, num_attention_heads: sizes of the network.
        intermediate_size: width inside every feed-forward and expert; None: 4 * hidden_size.
        activation_function, resid_pdrop and the other fields up to tie_word_embeddings: as in GPT2Config.
        sparse_layers: blocks that hold a sparse layer; [] is the dense baseline.
        num_experts: experts per sparse layer.
        placement: "replace": the sparse layer takes the place of the block's feed-forward; "insert": it stands
            before the block as a layer of its own (Lewis et al., 2021).
        num_sublayers: pre-norm residual feed-forwards stacked in each expert of an inserted layer.
        router: "hash", or one that learns: "switch", "token_switch", "gshard", "base" or "expert_choice".
        router_aux_loss_coef, router_z_loss_coef: coefficients of the auxiliary losses of switch, token_switch, gshard.
        router_jitter_noise: half-width of the uniform noise around 1 that multiplies the input of (token_)switch's gate
            in training.
        capacity_factor: in training, the maximum number of tokens per expert, as a multiple of its even share; None: no
            limit. For expert_choice: experts per token, on average; None: 2.
        expert_choice_cap: maximum number of experts per token; 0: no limit.
        hash_keys: the key that each sparse layer hashes, one of HASH_KEYS; None: the token, everywhere.
        num_hashes: N of MultiHash; 1 is the plain hash layer.
        rotation_period: above 1, a token at position p uses table column p % rotation_period, so the expert of a token
            rotates with its position.
        num_buckets: buckets of bigram keys.
        hash_vocab_size: vocabulary size that the tables were built for, from which keys are computed; None: vocab_size.
        split_sizes: sizes [H, G, P] of each layer's tables for split frequent tokens, [0, 0, 0] for a layer without
            them; None: no layer has them.
        position_embedding: "learned" (GPT-2's) or "sinusoidal" (no parameters; appendix B.2 of the paper).
        document_mask: whether training kept the documents of a sequence apart, each with positions from 0
            (position_ids mark where they begin); the model itself does not depend on it.
        route_table_digests: digest of each sparse layer's table, in the order of `sparse_layers`; None until set.
        route_table_ep_sizes: number of ranks that each of these tables was balanced for; informative only.

    Raises ValueError, naming both values, for a network that cannot be built.
    """

    model_type = "hash_gpt"
    keys_to_ignore_at_inference = ["past_key_values", "routing"]
    # GPT-2's code reads its own names.
    attribute_map = {
        "n_positions": "max_position_embeddings",
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_inner": "intermediate_size",
    }

    vocab_size: int = 50257
    max_position_embeddings: int = 1024
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float | int = 0.1
    embd_pdrop: float | int = 0.1
    attn_pdrop: float | int = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False
    add_cross_attention: bool = False
    use_cache: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    pad_token_id: int | None = None
    tie_word_embeddings: bool = True

    sparse_layers: list[int] = field(default_factory=list)
    num_experts: int = 16
    placement: str = "replace"
    num_sublayers: int = 1
    router: str = "hash"
    router_aux_loss_coef: float | int = ROUTER_DEFAULTS["router_aux_loss_coef"]
    router_z_loss_coef: float | int = ROUTER_DEFAULTS["router_z_loss_coef"]
    router_jitter_noise: float | int = ROUTER_DEFAULTS["router_jitter_noise"]
    capacity_factor: float | int | None = ROUTER_DEFAULTS["capacity_factor"]
    expert_choice_cap: int = ROUTER_DEFAULTS["expert_choice_cap"]
    hash_keys: list[str] | None = None
    num_hashes: int = 1
    rotation_period: int = 1
    num_buckets: int = 65536
    hash_vocab_size: int | None = None
    split_sizes: list[list[int]] | None = None
    position_embedding: str = "learned"
    document_mask: bool = False
    route_table_digests: list[str] | None = None
    route_table_ep_sizes: list[int] | None = None
    loss_type: str | None = "ForCausalLM"

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if self.hash_vocab_size is None:
            self.hash_vocab_size = self.vocab_size
        if self.hash_keys is None:
            self.hash_keys = ["token"] * len(self.sparse_layers) if self.router == "hash" else []
        _check_choice("router", self.router, tuple(ROUTERS))
        self._check_layers()
        if self.router == "hash":
            self._check_hashes()
        else:
            self._check_no_hashes()
        self._check_router()
        _check_choice("position_embedding", self.position_embedding, POSITION_EMBEDDINGS)
        _check_choice("placement", self.placement, PLACEMENTS)

    @property
    def routes_by_ids(self) -> bool:
        """Whether any layer routes by token ids."""
        return bool(self.sparse_layers) and self.router in ("hash", "token_switch")

    @property
    def has_causal_routes(self) -> bool:
        """Whether no route depends on later tokens; otherwise perplexity is not comparable with that of other models.

        Not is_causal: transformers would take that for the attention mask.
        """
        return not self.sparse_layers or (self.router != "expert_choice" and "next" not in self.hash_keys)

    @property
    def num_experts_per_tok(self) -> float:
        """Mean number of experts per token, if none is dropped."""
        if self.router == "expert_choice":
            return 2 if self.capacity_factor is None else self.capacity_factor
        return 2 if self.router == "gshard" else 1

    def _check_layers(self) -> None:
        missing = [layer for layer in self.sparse_layers if not 0 <= layer < self.num_hidden_layers]
        if missing:
            raise ValueError(
                f"sparse_layers {missing} do not exist: num_hidden_layers={self.num_hidden_layers}; count from 0"
            )
        if len(set(self.sparse_layers)) < len(self.sparse_layers):
            raise ValueError(f"sparse_layers={self.sparse_layers} names a layer twice")
        if self.sparse_layers and self.num_experts < 1:
            raise ValueError(f"num_experts={self.num_experts} must be at least 1 if there are sparse layers")
        if self.placement == "replace" and self.num_sublayers != 1:
            raise ValueError(
                f"num_sublayers={self.num_sublayers} with placement='replace': only inserted experts are stacks; "
                "set placement='insert'"
            )

    def _check_hashes(self) -> None:
        if len(self.hash_keys) != len(self.sparse_layers):
            raise ValueError(f"{len(self.hash_keys)} hash_keys for {len(self.sparse_layers)} sparse layers")
        for key in self.hash_keys:
            _check_choice("hash_keys", key, HASH_KEYS)
        if self.num_hashes > 1 and self.placement == "insert":
            raise ValueError(f"num_hashes={self.num_hashes} with placement='insert': MultiHash replaces a feed-forward")
        if self.rotation_period < 1 or (self.rotation_period > 1 and self.num_hashes > 1):
            raise ValueError(
                f"rotation_period={self.rotation_period} with num_hashes={self.num_hashes}: both must be at least 1, "
                "and one of them 1"
            )
        for name in ("hidden_size", "intermediate_size"):
            size = getattr(self, name)
            if size % self.num_hashes:
                raise ValueError(f"{name}={size} cannot be split evenly into num_hashes={self.num_hashes} segments")

    def _check_no_hashes(self) -> None:
        for name, value, none in (
            ("hash_keys", self.hash_keys, []),
            ("num_hashes", self.num_hashes, 1),
            ("rotation_period", self.rotation_period, 1),
            ("split_sizes", self.split_sizes, None),
        ):
            if value != none:
                raise ValueError(f"{name}={value} with router={self.router!r}, which has no hashes; omit it")

    def _check_router(self) -> None:
        for name, default in ROUTER_DEFAULTS.items():
            if name not in ROUTERS[self.router] and getattr(self, name) != default:
                readers = ", ".join(router for router, fields in ROUTERS.items() if name in fields)
                raise ValueError(
                    f"{name}={getattr(self, name)} with router={self.router!r}, which ignores it; it is a field of "
                    f"{readers}"
                )
        for name in ("router_aux_loss_coef", "router_z_loss_coef", "expert_choice_cap"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be finite and at least 0")
        if not 0 <= self.router_jitter_noise < 1:
            raise ValueError(f"router_jitter_noise={self.router_jitter_noise} must be at least 0 and below 1")
        if self.capacity_factor is not None and not 0 < self.capacity_factor < math.inf:
            raise ValueError(f"capacity_factor={self.capacity_factor} must be above 0, or None")
        if self.router == "gshard" and self.sparse_layers and self.num_experts < 2:
            raise ValueError(
                f"num_experts={self.num_experts} with router='gshard', which sends each token to two experts; "
                "set num_experts to 2 or more"
            )
        if self.router == "expert_choice" and self.sparse_layers and self.num_experts_per_tok > self.num_experts:
            raise ValueError(
                f"capacity_factor={self.num_experts_per_tok} experts per token exceed num_experts={self.num_experts}; "
                f"set capacity_factor to {self.num_experts} or less"
            )
        if 0 < self.expert_choice_cap < self.num_experts_per_tok:
            raise ValueError(
                f"expert_choice_cap={self.expert_choice_cap} is below the mean number of experts per token, "
                f"capacity_factor={self.num_experts_per_tok}; raise the cap or lower the factor"
            )


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(allowed)}")


HashGPTConfig.register_for_auto_class()
