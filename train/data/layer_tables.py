"""The route tables of a run: which table file serves which sparse layer, checked against data and network."""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from data_prep.storage.tensor_file import tensor_digest
from data_prep.tables.frequent_tokens import FrequentTokenSplit
from data_prep.tables.route_table import RouteTable, check_belongs
from data_prep.tables.route_table_file import read_route_table
from train.config.run_config import RunConfig


@dataclass(frozen=True, eq=False)
class LayerTable:
    """One layer's table of a RouteTable, as tensors for the model."""

    hash_key: str  # what the layer hashes
    num_buckets: int  # of key bigram
    num_hashes: int  # N of MultiHash
    tensors: dict[str, torch.Tensor]  # integers, by the names of models.router_hash.HashRouter's buffers
    predicted_load: np.ndarray  # int64 [E], tokens per expert on the counted corpus; zeros: unknown
    rotation_period: int = 1  # above 1: the expert of a token rotates with its position
    ep_size: int = 1  # number of ranks that the table was balanced for

    @property
    def layer_digest(self) -> str:
        """The digest of all tensors of the layer, equal to that of models.router_hash.HashRouter.layer_digest."""
        digests = [tensor_digest(tensor.numpy()) for tensor in self.tensors.values()]
        return digests[0] if len(digests) == 1 else "sha256:" + hashlib.sha256("".join(digests).encode()).hexdigest()

    @property
    def split_sizes(self) -> list[int]:
        """[split tokens, groups, period] of the tables of split frequent tokens."""
        if "split_table" not in self.tensors:
            return [0, 0, 0]
        return [len(self.tensors["split_table"]), *self.tensors["position_table"].shape]


def open_layer_tables(config: RunConfig, *, vocab_size: int, tokenizer_digest: str) -> list[LayerTable]:
    """Return one table per sparse layer: from its own file, the next of the one file, or the file's first for all.

    Empty for a dense model and for learned routers. Raises ValueError naming both values if a table does not belong
    to this vocabulary, tokenizer or network.
    """
    if not config.sparse_layers or config.router != "hash":
        return []
    paths = config.route_table if len(config.route_table) > 1 else config.route_table * len(config.sparse_layers)
    files = {path: read_route_table(Path(path)) for path in paths}
    for path, table in files.items():
        check_belongs(table, vocab_size=vocab_size, num_experts=config.num_experts, tokenizer_digest=tokenizer_digest)
        _check_fits(path, table, config)
        needed = 1 if config.share_route_table else paths.count(path)
        if table.num_tables < needed:
            raise ValueError(
                f"{path} holds {table.num_tables} tables for {needed} sparse layers of {config.sparse_layers}; "
                f"build it with --num_tables {needed}, or set share_route_table"
            )
    return _deal(paths, files, share=config.share_route_table)


def _deal(paths: list[str], files: dict[str, RouteTable], *, share: bool) -> list[LayerTable]:
    return [
        _layer_table(files[path], index=0 if share else paths[:layer].count(path)) for layer, path in enumerate(paths)
    ]


def _layer_table(table: RouteTable, *, index: int) -> LayerTable:
    tensors = {"route_table": table.tables[index]}
    if table.split is not None:
        tensors |= {field.name: getattr(table.split, field.name) for field in fields(FrequentTokenSplit)}
    return LayerTable(
        hash_key=table.hash_key,
        num_buckets=table.num_buckets,
        num_hashes=table.num_hashes,
        tensors={name: torch.from_numpy(values) for name, values in tensors.items()},
        predicted_load=table.load[index],
        rotation_period=table.rotation_period,
        ep_size=table.ep_size,
    )


def _check_fits(path: str, table: RouteTable, config: RunConfig) -> None:
    if table.top_k > 1:
        raise ValueError(f"{path} has top_k={table.top_k} experts per token; hash layers use 1 (MultiHash: num_hashes)")
    if table.hash_key == "position" and table.context_length != config.context_length:
        raise ValueError(
            f"{path} is a table of {table.context_length} positions but the run has context_length="
            f"{config.context_length}; build it with --context_length {config.context_length}"
        )
