"""The inputs of a run, opened and checked against each other before any process group exists."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data_prep.manifest import MANIFEST_NAME
from data_prep.token_shards import TokenStream
from models.configuration_hash_gpt import HashGPTConfig
from train.batches import PackedSequences
from train.config import RunConfig
from train.layer_tables import LayerTable, open_layer_tables
from train.network import network_config
from train.run_folder import run_identity


@dataclass(frozen=True)
class Inputs:
    """train, valid: sequences to learn from and to be measured on (valid may be None).
    layer_tables: one per sparse layer.
    """

    train: PackedSequences
    valid: PackedSequences | None
    vocab_size: int
    end_token_id: int
    tokenizer_dir: Path
    layer_tables: list[LayerTable]

    @property
    def route_tables(self) -> list[dict[str, torch.Tensor]]:
        """The tensors of every sparse layer's router, as HashGPTForCausalLM.set_route_tables takes them."""
        return [table.tensors for table in self.layer_tables]

    def network(self, config: RunConfig) -> HashGPTConfig:
        """The network that config, data and tables describe together."""
        return network_config(
            config, vocab_size=self.vocab_size, end_token_id=self.end_token_id, layer_tables=self.layer_tables
        )

    def notices(self, config: RunConfig) -> list[str]:
        """What a person should know of the tables and the run may go on with."""
        return [
            f"note: the table of layer {layer} was balanced for ep_size={table.ep_size}, and the run has "
            f"ep_size={config.ep_size}; `build_table --ep_size {config.ep_size}` balances its ranks"
            for layer, table in zip(config.sparse_layers, self.layer_tables, strict=True)
            if config.ep_size > 1 and table.ep_size != config.ep_size
        ]

    def identity(self, config: RunConfig) -> dict:
        """What a checkpoint of this run records, and a resumed run compares."""
        manifest = self.train.stream.manifest
        data = {
            "tokenizer_digest": manifest.tokenizer_digest,
            "corpus_digest": manifest.corpus_digest,
            "route_table_digests": self.route_table_digests,
            "predictions_digest": self._predictions_digest(),
        }
        return run_identity(config, data=data)

    def _predictions_digest(self) -> str | None:
        """Of the predictions that some layer routes by."""
        if not any(table.key == "predicted" for table in self.layer_tables):
            return None
        return self.train.predictions.manifest.corpus_digest

    @property
    def route_table_digests(self) -> list[str] | None:
        """The digest of each sparse layer's table, as the model's config records it."""
        return [table.digest for table in self.layer_tables] or None

    @property
    def predicted_load(self) -> np.ndarray | None:
        """Rows per expert on the counted corpus [sparse layers, E]; None for a dense model."""
        return np.stack([table.predicted_load for table in self.layer_tables]) if self.layer_tables else None


def open_inputs(config: RunConfig) -> Inputs:
    """Raises ValueError, naming both values, where data, tokenizer, table and network do not fit together."""
    train = _open_sequences(config.train_data, config)
    manifest = train.stream.manifest
    vocab_size = config.vocab_size or manifest.vocab_size
    if vocab_size < manifest.vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} is smaller than the tokenizer's {manifest.vocab_size} in {config.train_data}"
        )
    if train.num_sequences < config.global_batch_size:
        raise ValueError(
            f"{config.train_data} holds {train.num_sequences} sequences of {config.context_length} tokens, fewer than "
            f"one batch of global_batch_size={config.global_batch_size}; use more data or a smaller batch"
        )
    valid = _open_validation(config, manifest.tokenizer_digest)
    tables = open_layer_tables(config, vocab_size=vocab_size, tokenizer_digest=manifest.tokenizer_digest)
    if any(table.key == "predicted" for table in tables):
        _check_predictions(train, valid)
    return Inputs(
        train=train,
        valid=valid,
        vocab_size=vocab_size,
        end_token_id=manifest.end_token_id,
        tokenizer_dir=Path(config.train_data) / "tokenizer",
        layer_tables=tables,
    )


def _open_sequences(folder: str, config: RunConfig) -> PackedSequences:
    predictions = Path(folder) / "predictions"
    return PackedSequences(
        TokenStream(Path(folder)),
        context_length=config.context_length,
        predictions=TokenStream(predictions) if (predictions / MANIFEST_NAME).is_file() else None,
    )


def _open_validation(config: RunConfig, tokenizer_digest: str) -> PackedSequences | None:
    if config.valid_data is None:
        return None
    valid = _open_sequences(config.valid_data, config)
    digest = valid.stream.manifest.tokenizer_digest
    if digest != tokenizer_digest:
        raise ValueError(
            f"{config.valid_data} was made with tokenizer {digest}, {config.train_data} with {tokenizer_digest}; "
            "tokenize both with the same one"
        )
    if valid.num_sequences == 0:
        raise ValueError(f"{config.valid_data} holds fewer than {config.context_length + 1} tokens, not one sequence")
    return valid


def _check_predictions(*sequences: PackedSequences | None) -> None:
    for part in sequences:
        if part is not None and part.predictions is None:
            raise ValueError(
                f"a sparse layer routes by predicted tokens, but {part.stream.folder} has no predictions/; "
                "make them with `python launch/predict.py BASELINE FOLDER`"
            )
