"""HashGPTConfig: GPT-2's configuration plus which blocks are sparse and how many experts they hold."""

from dataclasses import field

from huggingface_hub.dataclasses import strict
from transformers import GPT2Config

POSITION_EMBEDDINGS = ("learned", "sinusoidal")


@strict
class HashGPTConfig(GPT2Config):
    r"""Configuration of a GPT-2 in which the feed-forwards of some blocks are hash layers (Roller et al., 2021).

    Args:
        sparse_layers: indices of the blocks whose feed-forward is made of experts; [] is the dense baseline.
        num_experts: experts per sparse layer, each of the shape of the dense feed-forward.
        position_embedding: "learned" (GPT-2's) or "sinusoidal" (no parameters; appendix B.2 of the paper).
        route_table_digests: digest of each sparse layer's route table, in the order of `sparse_layers`;
            None until tables are set.

    Raises ValueError where a sparse layer does not exist or is named twice.
    """

    model_type = "hash_gpt"

    sparse_layers: list[int] = field(default_factory=list)
    num_experts: int = 16
    position_embedding: str = "learned"
    route_table_digests: list[str] | None = None
    loss_type: str | None = "ForCausalLM"

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        missing = [layer for layer in self.sparse_layers if not 0 <= layer < self.n_layer]
        if missing:
            raise ValueError(f"sparse_layers {missing} do not exist: n_layer={self.n_layer}, count from 0")
        if len(set(self.sparse_layers)) < len(self.sparse_layers):
            raise ValueError(f"sparse_layers={self.sparse_layers} names a layer twice")
        if self.sparse_layers and self.num_experts < 1:
            raise ValueError(f"num_experts={self.num_experts} must be at least 1 when there are sparse layers")
        if self.position_embedding not in POSITION_EMBEDDINGS:
            raise ValueError(f"position_embedding={self.position_embedding!r} is not one of {POSITION_EMBEDDINGS}")

    @property
    def ffn_size(self) -> int:
        """Hidden width D of every feed-forward and expert: n_inner, or GPT-2's 4 d."""
        return self.n_inner if self.n_inner is not None else 4 * self.n_embd


HashGPTConfig.register_for_auto_class()
