"""The inputs of a run, opened and checked against each other before any process group exists."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data_prep.shards.mixture import Mixture, read_mixture
from data_prep.tokenizing.output_folder import TOKENIZER_FOLDER
from models.configuration_hash_gpt import HashGPTConfig
from models.router_expert_choice import NOT_CAUSAL
from train.checkpoint.run_folder import run_identity
from train.config.run_config import RunConfig
from train.data.batches import PackedSequences
from train.data.corpora import Corpora, open_corpora
from train.data.layer_tables import LayerTable, open_layer_tables
from train.data.mixture_order import MixtureOrder
from train.engine.network import network_config


@dataclass(frozen=True)
class Inputs:
    """mixture: what train_data names. corpora: its sequences, and those of validation.
    layer_tables: one per hash layer.
    """

    mixture: Mixture
    corpora: Corpora
    vocab_size: int
    layer_tables: list[LayerTable]

    @property
    def train(self) -> PackedSequences:
        return self.corpora.train

    @property
    def order(self) -> MixtureOrder:
        """Of the sequences of train."""
        return self.corpora.order

    @property
    def valid(self) -> PackedSequences | None:
        return self.corpora.valid

    @property
    def end_token_id(self) -> int:
        return self.mixture.end_token_id

    @property
    def tokenizer_dir(self) -> Path:
        return self.mixture.streams[0].folder / TOKENIZER_FOLDER

    @property
    def route_tables(self) -> list[dict[str, torch.Tensor]]:
        """The tensors of every hash layer's router, as HashGPTForCausalLM.set_route_tables takes them."""
        return [table.tensors for table in self.layer_tables]

    def network(self, config: RunConfig) -> HashGPTConfig:
        """The network that config, data and tables describe together."""
        return network_config(
            config, vocab_size=self.vocab_size, end_token_id=self.end_token_id, layer_tables=self.layer_tables
        )

    def notices(self, config: RunConfig) -> list[str]:
        """What a person should know of the tables and the run may go on with."""
        if config.sparse_layers and config.router == "expert_choice":
            return [f"note: {NOT_CAUSAL}"]
        tables = zip(config.sparse_layers, self.layer_tables, strict=True) if self.layer_tables else ()
        return [
            f"note: the table of layer {layer} was balanced for ep_size={table.ep_size}, and the run has "
            f"ep_size={config.ep_size}; `build_table --ep_size {config.ep_size}` balances its ranks"
            for layer, table in tables
            if config.ep_size > 1 and table.ep_size != config.ep_size
        ]

    def identity(self, config: RunConfig) -> dict:
        """What a checkpoint of this run records, and a resumed run compares."""
        data = {
            "tokenizer_digest": self.mixture.tokenizer_digest,
            "corpus_digest": self.mixture.corpus_digest,
            "route_table_digests": self.route_table_digests,
            "predictions_digest": self._predictions_digest(),
        }
        return run_identity(config, data=data)

    def _predictions_digest(self) -> str | None:
        """Of the predictions that some layer routes by."""
        return self.corpora.predictions_digest if _need_predictions(self.layer_tables) else None

    @property
    def route_table_digests(self) -> list[str] | None:
        """The digest of each sparse layer's table, as the model's config records it."""
        return [table.layer_digest for table in self.layer_tables] or None

    @property
    def predicted_load(self) -> np.ndarray | None:
        """Rows per expert on the counted corpus [sparse layers, E]; None without tables."""
        return np.stack([table.predicted_load for table in self.layer_tables]) if self.layer_tables else None


def open_inputs(config: RunConfig) -> Inputs:
    """Raises ValueError, naming both values, where data, tokenizer, table and network do not fit together."""
    mixture = read_mixture(config.train_data)
    vocab_size = config.vocab_size or mixture.vocab_size
    if vocab_size < mixture.vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} is smaller than the tokenizer's {mixture.vocab_size} in {config.train_data}"
        )
    tables = open_layer_tables(config, vocab_size=vocab_size, tokenizer_digest=mixture.tokenizer_digest)
    needs_predictions = _need_predictions(tables)
    corpora = open_corpora(config, mixture, vocab_size=vocab_size, needs_predictions=needs_predictions)
    return Inputs(mixture, corpora, vocab_size, tables)


def _need_predictions(tables: list[LayerTable]) -> bool:
    return any(table.hash_key == "predicted" for table in tables)
