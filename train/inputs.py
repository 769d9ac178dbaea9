"""The inputs of a run, opened and checked against each other before any process group exists."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data_prep.route_table import RouteTable, check_belongs, read_route_table, table_digest
from data_prep.token_shards import TokenStream
from train.batches import PackedSequences
from train.config import RunConfig


@dataclass(frozen=True)
class Inputs:
    """train, valid: sequences to learn from and to be measured on (valid may be None).
    tables: integers [sparse layers, V, 1], or None for a dense model.
    predicted_load: rows per expert on the counted corpus, [sparse layers, E], or None.
    """

    train: PackedSequences
    valid: PackedSequences | None
    vocab_size: int
    end_token_id: int
    tokenizer_dir: Path
    tables: torch.Tensor | None
    predicted_load: np.ndarray | None

    @property
    def route_table_digests(self) -> list[str] | None:
        """The digest of each sparse layer's table, as the model's config records it."""
        return None if self.tables is None else [table_digest(table.numpy()) for table in self.tables]


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
    table = _open_table(config, vocab_size, manifest.tokenizer_digest) if config.sparse_layers else None
    return Inputs(
        train=train,
        valid=_open_validation(config, manifest.tokenizer_digest),
        vocab_size=vocab_size,
        end_token_id=manifest.end_token_id,
        tokenizer_dir=Path(config.train_data) / "tokenizer",
        tables=None if table is None else torch.from_numpy(_per_layer(table.tables, config)),
        predicted_load=None if table is None else _per_layer(table.load, config),
    )


def check_run_folder(config: RunConfig) -> None:
    """ValueError where run_dir holds something that this run would mix with or overwrite."""
    folder = Path(config.run_dir)
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / "run.yaml").is_file():
        raise ValueError(f"run_dir {folder} exists, is not empty and is not a run (no run.yaml); choose another folder")
    if not config.resume:
        raise ValueError(f"run_dir {folder} holds a run; pass --resume to go on with it, or choose another folder")


def _open_sequences(folder: str, config: RunConfig) -> PackedSequences:
    return PackedSequences(TokenStream(Path(folder)), context_length=config.context_length)


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


def _open_table(config: RunConfig, vocab_size: int, tokenizer_digest: str) -> RouteTable:
    table = read_route_table(Path(config.route_table))
    check_belongs(
        table, vocab_size=vocab_size, num_experts=config.num_experts, tokenizer_digest=tokenizer_digest
    )  # fmt: skip
    needed = 1 if config.share_route_table else len(config.sparse_layers)
    if len(table.tables) < needed:
        raise ValueError(
            f"{config.route_table} holds {len(table.tables)} tables for {needed} sparse layers {config.sparse_layers}; "
            f"build it with --num_tables {needed}, or set share_route_table"
        )
    return table


def _per_layer(values: np.ndarray, config: RunConfig) -> np.ndarray:
    """[tables, ...] -> [sparse layers, ...]: one table each, or the first for all."""
    layers = len(config.sparse_layers)
    return np.repeat(values[:1], layers, axis=0) if config.share_route_table else values[:layers]
