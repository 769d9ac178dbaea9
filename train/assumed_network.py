"""The network of a dry run some of whose data or route tables do not exist yet, from the recipe and the rest."""

from pathlib import Path

import numpy as np

from data_prep.shards.mixture import folders_to_read
from data_prep.shards.token_stream import TokenStream
from models.configuration_hash_gpt import HashGPTConfig
from train.config.run_config import RunConfig
from train.data.layer_tables import LayerTable
from train.engine.network import network_config


def missing_inputs(config: RunConfig) -> list[str]:
    """The paths of the token shards and route tables that do not exist; of a mixture, those of its parts."""
    mixtures = [config.train_data] + ([] if config.eval_data is None else [config.eval_data])
    paths = [*(folder for mixture in mixtures for folder in folders_to_read(mixture)), *map(Path, config.route_table)]
    return [str(path) for path in dict.fromkeys(paths) if not path.exists()]


def assumed_network(config: RunConfig) -> HashGPTConfig:
    """A network whose hash layers hash the token, once. ValueError if neither recipe nor data have the vocabulary."""
    vocab_size = config.vocab_size or _vocabulary_of_data(config)
    tables = []
    if config.router == "hash":
        table = LayerTable("token", num_buckets=0, num_hashes=1, tensors={}, predicted_load=np.zeros(0))
        tables = [table] * len(config.sparse_layers)
    return network_config(config, vocab_size=vocab_size, end_token_id=0, layer_tables=tables)


def _vocabulary_of_data(config: RunConfig) -> int:
    """The vocabulary of the training data, all parts of which have the same tokenizer; one that exists is enough."""
    folders = folders_to_read(config.train_data)
    existing = [folder for folder in folders if folder.exists()]
    if not existing:
        raise ValueError(
            f"vocab_size=None takes the vocabulary of {config.train_data}, and {folders[0]} does not exist yet; set "
            "--vocab_size to describe the run without it"
        )
    return TokenStream(existing[0]).manifest.vocab_size
