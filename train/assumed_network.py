"""The network of a dry run whose data or route tables do not exist yet, from the recipe alone."""

from pathlib import Path

import numpy as np

from models.configuration_hash_gpt import HashGPTConfig
from train.config.run_config import RunConfig
from train.data.layer_tables import LayerTable
from train.engine.network import network_config


def missing_inputs(config: RunConfig) -> list[str]:
    """The paths of the token shards and route tables that do not exist."""
    return [path for path in dict.fromkeys([config.train_data, *config.route_table]) if not Path(path).exists()]


def assumed_network(config: RunConfig) -> HashGPTConfig:
    """A network whose hash layers hash the token, once. ValueError if the recipe leaves the vocabulary to the data."""
    if config.vocab_size is None:
        raise ValueError(
            f"vocab_size=None takes the vocabulary of {config.train_data}, and {missing_inputs(config)[0]} does not "
            "exist yet; set --vocab_size to describe the run without it"
        )
    tables = []
    if config.router == "hash":
        table = LayerTable("token", num_buckets=0, num_hashes=1, tensors={}, predicted_load=np.zeros(0))
        tables = [table] * len(config.sparse_layers)
    return network_config(config, vocab_size=config.vocab_size, end_token_id=0, layer_tables=tables)
