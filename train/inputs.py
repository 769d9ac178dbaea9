"""The inputs of a run, opened and checked against each other before any process group exists."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data_prep.shards.mixture import Mixture, read_mixture
from data_prep.shards.tokenizer_files import TOKENIZER_FOLDER, check_tokenizer_files
from models.configuration_hash_gpt import HashGPTConfig
from models.router_expert_choice import NOT_CAUSAL
from train.config.resume_compatibility import resume_compatibility
from train.config.run_config import RunConfig
from train.data.batches import PackedSequences
from train.data.corpora import Corpora, open_corpora
from train.data.layer_tables import LayerTable, open_layer_tables
from train.data.mixture_order import MixtureOrder
from train.engine.network import network_config


@dataclass(frozen=True)
class Inputs:
    """Everything that a run reads, checked."""

    mixture: Mixture  # the token shards of train_data
    corpora: Corpora  # the sequences for training and for validation
    vocab_size: int
    layer_tables: list[LayerTable]  # one per hash layer

    @property
    def train(self) -> PackedSequences:
        return self.corpora.train

    @property
    def order(self) -> MixtureOrder:
        """The order of the training sequences."""
        return self.corpora.order

    @property
    def validation(self) -> PackedSequences | None:
        """The sequences for validation; None without any."""
        return self.corpora.validation

    @property
    def end_token_id(self) -> int:
        return self.mixture.end_token_id

    @property
    def tokenizer_dir(self) -> Path:
        return self.mixture.streams[0].folder / TOKENIZER_FOLDER

    @property
    def route_tables(self) -> list[dict[str, torch.Tensor]]:
        """The router tensors of every hash layer, for HashGPTForCausalLM.set_route_tables."""
        return [table.tensors for table in self.layer_tables]

    def network(self, config: RunConfig) -> HashGPTConfig:
        """The network that config, data and tables define together."""
        return network_config(
            config, vocab_size=self.vocab_size, end_token_id=self.end_token_id, layer_tables=self.layer_tables
        )

    def notices(self, config: RunConfig) -> list[str]:
        """Facts about the routing that a user should know but that do not prevent the run."""
        if config.sparse_layers and config.router == "expert_choice":
            return [f"note: {NOT_CAUSAL}"]
        tables = zip(config.sparse_layers, self.layer_tables, strict=True) if self.layer_tables else ()
        return [
            f"note: the table of layer {layer} was balanced for ep_size={table.ep_size}, but the run has "
            f"ep_size={config.ep_size}; `build_table --ep_size {config.ep_size}` balances it for this run"
            for layer, table in tables
            if config.ep_size > 1 and table.ep_size != config.ep_size
        ]

    def check_sizes(self) -> None:
        """Raise ValueError for a token shard of the wrong size, which is otherwise found when it is first read."""
        for sequences in filter(None, (self.train, self.validation)):
            for stream in (*sequences.streams, *(sequences.predictions or ())):
                stream.check_sizes()

    def resume_compatibility(self, config: RunConfig) -> dict:
        """The values that a checkpoint of this run records and that a resumed run compares."""
        data = {
            "tokenizer_digest": self.mixture.tokenizer_digest,
            "corpus_digest": self.mixture.corpus_digest,
            "route_table_digests": self.route_table_digests,
            "predictions_digest": self._predictions_digest(),
        }
        return resume_compatibility(config, data=data)

    def _predictions_digest(self) -> str | None:
        """The digest of the predictions if a layer routes by them, else None."""
        return self.corpora.predictions_digest if _need_predictions(self.layer_tables) else None

    @property
    def route_table_digests(self) -> list[str] | None:
        """The digest of each hash layer's table, as the model's config records it."""
        return [table.layer_digest for table in self.layer_tables] or None

    @property
    def predicted_load(self) -> np.ndarray | None:
        """Tokens per expert on the counted corpus [sparse layers, E]; None without tables."""
        return np.stack([table.predicted_load for table in self.layer_tables]) if self.layer_tables else None


def open_inputs(config: RunConfig) -> Inputs:
    """ValueError, naming both values, if data, tokenizer, tables and network do not fit together."""
    mixture = read_mixture(config.train_data)
    vocab_size = config.vocab_size or mixture.vocab_size
    if vocab_size < mixture.vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} is smaller than the tokenizer's {mixture.vocab_size} in {config.train_data}; "
            f"set it to at least {mixture.vocab_size}"
        )
    source = mixture.streams[0]  # its tokenizer travels with the model
    check_tokenizer_files(source.folder, source.manifest.tokenizer_files)
    tables = open_layer_tables(config, vocab_size=vocab_size, tokenizer_digest=mixture.tokenizer_digest)
    needs_predictions = _need_predictions(tables)
    corpora = open_corpora(config, mixture, vocab_size=vocab_size, needs_predictions=needs_predictions)
    return Inputs(mixture, corpora, vocab_size, tables)


def _need_predictions(tables: list[LayerTable]) -> bool:
    return any(table.hash_key == "predicted" for table in tables)
