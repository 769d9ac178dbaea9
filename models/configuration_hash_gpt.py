"""HashGPTConfig: GPT-2's configuration plus which layers are sparse, what they hash and what their experts are."""

from dataclasses import field

from huggingface_hub.dataclasses import strict
from transformers import GPT2Config

from .hash_keys import KEYS

POSITION_EMBEDDINGS = ("learned", "sinusoidal")
PLACEMENTS = ("replace", "insert")


@strict
class HashGPTConfig(GPT2Config):
    r"""Configuration of a GPT-2 with hash layers (Roller et al., 2021); the defaults are GPT-2 itself.

    Args:
        sparse_layers: blocks that hold a sparse layer; [] is the dense baseline.
        num_experts: experts per sparse layer.
        placement: "replace", the sparse layer takes the place of the block's feed-forward, or "insert", it stands
            before the block as a layer of its own (Lewis et al., 2021).
        num_sublayers: pre-norm residual feed-forwards stacked in each expert of an inserted layer.
        hash_keys: what each sparse layer hashes, one of models/hash_keys.py's KEYS; None: the token, everywhere.
        num_hashes: N of MultiHash; 1 is the plain hash layer.
        num_turns: above 1, position p of a context goes by column p modulo num_turns of its table: experts take turns.
        num_buckets: buckets of bigram keys.
        hash_vocab_size: vocabulary when the tables were built, which previous-token and bigram keys count with;
            None: vocab_size.
        split_sizes: sizes [H, G, P] of each layer's tables for split heavy tokens, [0, 0, 0] without; None: nowhere.
        position_embedding: "learned" (GPT-2's) or "sinusoidal" (no parameters; appendix B.2 of the paper).
        document_mask: trained on documents that do not see each other, each with positions from 0 (position_ids say
            where they begin); nothing in the model depends on it.
        route_table_digests: digest of each sparse layer's table, in the order of `sparse_layers`; None until set.
        route_table_ep_sizes: number of ranks that each of these tables was balanced for; nothing depends on it.

    Raises ValueError, naming both values, for a network that cannot be built.
    """

    model_type = "hash_gpt"

    sparse_layers: list[int] = field(default_factory=list)
    num_experts: int = 16
    placement: str = "replace"
    num_sublayers: int = 1
    hash_keys: list[str] | None = None
    num_hashes: int = 1
    num_turns: int = 1
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
        if self.hash_vocab_size is None:
            self.hash_vocab_size = self.vocab_size
        if self.hash_keys is None:
            self.hash_keys = ["token"] * len(self.sparse_layers)
        self._check_layers()
        self._check_hashes()
        _check_choice("position_embedding", self.position_embedding, POSITION_EMBEDDINGS)
        _check_choice("placement", self.placement, PLACEMENTS)

    @property
    def ffn_size(self) -> int:
        """Hidden width D of every feed-forward and expert: n_inner, or GPT-2's 4 d."""
        return self.n_inner if self.n_inner is not None else 4 * self.n_embd

    def _check_layers(self) -> None:
        missing = [layer for layer in self.sparse_layers if not 0 <= layer < self.n_layer]
        if missing:
            raise ValueError(f"sparse_layers {missing} do not exist: n_layer={self.n_layer}, count from 0")
        if len(set(self.sparse_layers)) < len(self.sparse_layers):
            raise ValueError(f"sparse_layers={self.sparse_layers} names a layer twice")
        if self.sparse_layers and self.num_experts < 1:
            raise ValueError(f"num_experts={self.num_experts} must be at least 1 when there are sparse layers")
        if self.placement == "replace" and self.num_sublayers != 1:
            raise ValueError(
                f"num_sublayers={self.num_sublayers} with placement='replace': only inserted experts are stacks; "
                "set placement='insert'"
            )

    def _check_hashes(self) -> None:
        if len(self.hash_keys) != len(self.sparse_layers):
            raise ValueError(f"{len(self.hash_keys)} hash_keys for {len(self.sparse_layers)} sparse layers")
        for key in self.hash_keys:
            _check_choice("hash_keys", key, KEYS)
        if self.num_hashes > 1 and self.placement == "insert":
            raise ValueError(f"num_hashes={self.num_hashes} with placement='insert': MultiHash replaces a feed-forward")
        if self.num_turns < 1 or (self.num_turns > 1 and self.num_hashes > 1):
            raise ValueError(
                f"num_turns={self.num_turns} with num_hashes={self.num_hashes}: at least 1, and one of them 1"
            )
        for name, size in (("n_embd", self.n_embd), ("ffn_size", self.ffn_size)):
            if size % self.num_hashes:
                raise ValueError(f"{name}={size} cannot be split evenly into num_hashes={self.num_hashes} segments")


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(allowed)}")


HashGPTConfig.register_for_auto_class()
