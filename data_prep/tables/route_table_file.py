"""The file of a route table: .safetensors, with the table's provenance in its metadata."""

from dataclasses import fields
from pathlib import Path

import numpy as np

from data_prep.storage.tensor_file import check_schema, read_tensors, write_tensors
from data_prep.tables.frequent_tokens import FrequentTokenSplit
from data_prep.tables.route_table import RouteTable

SCHEMA_VERSION = 1
KIND = "route_table"
MAKE_AGAIN = "make it again with data_prep.build_table"
TEXT_FIELDS = ("method", "columns", "hash_key", "tokenizer_digest", "corpus_digest")
INTEGER_FIELDS = ("num_experts", "seed", "ep_size", "vocab_size", "num_buckets", "context_length")
# These follow from the tensors: they are written for readers without this code.
DERIVED_FIELDS = (
    "num_tables",
    "num_hashes",
    "top_k",
    "rotation_period",
    "max_over_mean",
    "rank_max_over_mean",
    "num_tokens",
    "digest",
    "split_digest",
)
CHECKED_FIELDS = ("digest", "split_digest", "num_tokens")


def read_route_table(path: str | Path) -> RouteTable:
    """Read and check a route table; ValueError if its digest, shape or range is wrong."""
    tensors, metadata = read_tensors(path)
    check_schema(path, metadata, kind=KIND, schema_version=SCHEMA_VERSION)
    try:
        table = _from_file(tensors, metadata)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: {error}; {MAKE_AGAIN}") from error
    for name in CHECKED_FIELDS:
        found, expected = str(getattr(table, name)), metadata.get(name)
        if found != expected:
            raise ValueError(f"{path} has {name} {found} but says {expected}: damaged; {MAKE_AGAIN}")
    return table


def write_route_table(path: str | Path, table: RouteTable) -> None:
    """Write `table` atomically; equal tables give equal bytes."""
    tensors = {"route_table": table.tables, "load": table.load}
    if table.split is not None:
        tensors |= {field.name: getattr(table.split, field.name) for field in fields(FrequentTokenSplit)}
    names = (*TEXT_FIELDS, *INTEGER_FIELDS, *DERIVED_FIELDS, "lower_bound")
    metadata = {"kind": KIND, "schema_version": str(SCHEMA_VERSION)}
    write_tensors(path, tensors, metadata=metadata | {name: str(getattr(table, name)) for name in names})


def _from_file(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> RouteTable:
    names = [field.name for field in fields(FrequentTokenSplit)]
    return RouteTable(
        split=FrequentTokenSplit(**{name: tensors[name] for name in names}) if metadata["split_digest"] else None,
        tables=tensors["route_table"],
        load=tensors["load"],
        lower_bound=float(metadata["lower_bound"]),
        **{name: metadata[name] for name in TEXT_FIELDS},
        **{name: int(metadata[name]) for name in INTEGER_FIELDS},
    )
