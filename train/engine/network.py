"""The network of a run config, in the words of transformers."""

from models.choices import ROUTER_DEFAULTS
from models.configuration_hash_gpt import HashGPTConfig
from train.config.run_config import RunConfig
from train.data.layer_tables import LayerTable


def network_config(
    config: RunConfig, *, vocab_size: int, end_token_id: int, layer_tables: list[LayerTable]
) -> HashGPTConfig:
    """The network's configuration, the part of a run that travels with the weights.

    What each layer hashes is said by its table, so a run cannot contradict it. Raises ValueError where the tables
    of several layers cannot be in one network.
    """
    return HashGPTConfig(
        vocab_size=vocab_size,
        max_position_embeddings=config.context_length,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        activation_function=config.activation,
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        attn_pdrop=config.dropout,
        position_embedding=config.position_embedding,
        document_mask=config.document_mask,
        sparse_layers=config.sparse_layers,
        num_experts=config.num_experts,
        placement=config.placement,
        num_sublayers=config.num_sublayers,
        router=config.router,
        **{name: getattr(config, name) for name in ROUTER_DEFAULTS},
        hash_keys=[table.hash_key for table in layer_tables],
        num_hashes=_the_same("num_hashes", [table.num_hashes for table in layer_tables], default=1),
        rotation_period=_the_same("rotation_period", [table.rotation_period for table in layer_tables], default=1),
        num_buckets=_the_same(
            "num_buckets", [t.num_buckets for t in layer_tables if t.hash_key == "bigram"], default=65536
        ),
        split_sizes=_split_sizes(layer_tables),
        route_table_ep_sizes=[table.ep_size for table in layer_tables] or None,
        bos_token_id=end_token_id,
        eos_token_id=end_token_id,
    )


def _the_same(name: str, values: list[int], *, default: int) -> int:
    if len(set(values)) > 1:
        raise ValueError(f"the route tables have {name} {values}; all sparse layers of a network need the same")
    return values[0] if values else default


def _split_sizes(layer_tables: list[LayerTable]) -> list[list[int]] | None:
    sizes = [table.split_sizes for table in layer_tables]
    return sizes if any(heavy for heavy, _, _ in sizes) else None
