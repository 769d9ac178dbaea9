"""The route-table file: which expert serves which key in each sparse layer, and how that was decided."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from data_prep.counts.hash_keys import num_keys
from data_prep.storage.tensor_file import check_range, check_schema, read_tensors, tensor_digest, write_tensors
from data_prep.tables.expert_load import check_experts, max_over_mean, rank_load
from data_prep.tables.heavy_split import HeavySplit, check_split

SCHEMA_VERSION = 4  # those before it are still read
KIND = "route_table"
CREATED_BY = "data_prep.route_table 4"  # names the format, not the module
MAKE_AGAIN = "make it again with data_prep.build_table"
TEXT_FIELDS = ("method", "hash_key", "tokenizer_digest", "corpus_digest")
INTEGER_FIELDS = (
    "num_experts",
    "seed",
    "ep_size",
    "vocab_size",
    "num_buckets",
    "context_length",
    "top_k",
    "rotation_period",
)
DERIVED_FIELDS = ("num_tables", "num_hashes", "num_tokens", "max_over_mean", "rank_max_over_mean")
# Version 1 had no keys but tokens, one expert per hash_key, and no split tokens; version 2 had no turns; version 3 had
# no digest of the file.
SINCE_VERSION_3 = {"rotation_period": "1"}
SINCE_VERSION_2 = {"num_buckets": "0", "context_length": "0", "top_k": "1", "split_digest": ""} | SINCE_VERSION_3
MISSING = {"1": SINCE_VERSION_2, "2": SINCE_VERSION_3}


@dataclass(frozen=True, eq=False)
class RouteTable:
    """One table per sparse layer with its provenance; a RouteTable that exists is valid."""

    tables: np.ndarray  # int32 [num_tables, num_keys, num_hashes, top_k or rotation_period], 0..num_experts-1
    num_experts: int
    method: str  # a method of data_prep.tables.methods, or "imported"
    seed: int
    ep_size: int = 1  # number of ranks the table was balanced for
    hash_key: str = "token"  # what is looked up, see hash_keys.py
    vocab_size: int = 0  # number of token ids; 0: as many as there are keys
    num_buckets: int = 0  # of key bigram
    context_length: int = 0  # of key position; for other keys the one that was counted with, 0: none
    top_k: int = 1  # above 1: the last axis holds the different experts that a token's outputs are added up from
    rotation_period: int = (
        1  # above 1: the last axis holds the expert at position p of a context in column p % rotation_period
    )
    tokenizer_digest: str = ""  # of the tokenizer whose ids are the keys
    corpus_digest: str = ""  # of the token shards that were counted
    lower_bound: float = 1.0  # the least max_over_mean any table can have on that corpus
    load: np.ndarray | None = None  # int64 [num_tables, num_experts], (token, choice) pairs per expert; zeros: unknown
    split: HeavySplit | None = None  # of the tokens heavier than an expert; the same for all tables

    def __post_init__(self):
        if self.load is None:
            object.__setattr__(self, "load", np.zeros((len(self.tables), self.num_experts), dtype=np.int64))
        _check_tables(self.tables, self.num_experts, self.top_k)
        if self.vocab_size == 0:
            object.__setattr__(self, "vocab_size", self.tables.shape[1])
        _check_num_keys(self)
        _check_turns(self)
        _check_load(self.load, self.num_tables, self.num_experts, self.ep_size)
        if self.split is not None:
            if self.hash_key != "token" or self.num_choices != 1:
                raise ValueError(
                    f"split tokens need key token and one expert, not {self.hash_key} and {self.num_choices}"
                )
            check_split(self.split, vocab_size=self.vocab_size, num_experts=self.num_experts)

    @property
    def num_tables(self) -> int:
        return self.tables.shape[0]

    @property
    def num_choices(self) -> int:
        """Number of (token, expert) pairs per token: num_hashes or top_k, one of which is 1."""
        return self.tables.shape[2] // self.rotation_period

    @property
    def num_hashes(self) -> int:
        return 1 if self.top_k > 1 else self.num_choices

    @property
    def num_tokens(self) -> int:
        """Number of counted tokens, 0 where the table was made without counts."""
        return int(self.load[0].sum()) // self.num_choices

    @property
    def max_over_mean(self) -> float:
        """Predicted load imbalance of the worst table; nan where the table was made without counts."""
        return _worst_imbalance(self.load)

    @property
    def rank_max_over_mean(self) -> float:
        """The same between ranks of num_experts / ep_size consecutive experts."""
        return _worst_imbalance(rank_load(self.load, self.ep_size))

    @property
    def digest(self) -> str:
        """Of `tables` alone; split_digest tells the rest."""
        return table_digest(self.tables)

    @property
    def split_digest(self) -> str:
        return "" if self.split is None else self.split.digest


def read_route_table(path: str | Path) -> RouteTable:
    """Read and check a route table; ValueError where its digest, shape or range is wrong."""
    tensors, metadata = read_tensors(path)
    check_schema(path, metadata, schema_versions=(1, 2, 3, SCHEMA_VERSION), kind=KIND, digest_since=4)
    metadata = MISSING.get(metadata["schema_version"], {}) | metadata
    try:
        table = _from_file(tensors, metadata)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: {error}; {MAKE_AGAIN}") from error
    for name in ("digest", "split_digest", "num_tokens"):
        found, expected = str(getattr(table, name)), metadata.get(name)
        if found != expected:
            raise ValueError(f"{path} has {name} {found} but says {expected}: damaged; {MAKE_AGAIN}")
    return table


def write_route_table(path: str | Path, table: RouteTable) -> None:
    """Write `table` atomically; equal tables give equal bytes."""
    tensors = {"route_table": table.tables, "load": table.load}
    if table.split is not None:
        tensors |= {field.name: getattr(table.split, field.name) for field in fields(HeavySplit)}
    write_tensors(path, tensors, metadata=_metadata(table))


def check_belongs(table: RouteTable, *, vocab_size: int, num_experts: int, tokenizer_digest: str) -> None:
    """Raise ValueError unless the table was made for this vocabulary, number of experts and tokenizer."""
    if table.vocab_size != vocab_size:
        raise ValueError(
            f"the route table has vocab_size={table.vocab_size} but the model has vocab_size={vocab_size}; "
            f"build the table with --vocab_size {vocab_size}"
        )
    if table.num_experts != num_experts:
        raise ValueError(
            f"the route table has num_experts={table.num_experts} but the model has num_experts={num_experts}; "
            f"build the table with --num_experts {num_experts}"
        )
    if table.tokenizer_digest != tokenizer_digest:
        raise ValueError(
            f"the route table was made for tokenizer {table.tokenizer_digest} but the tokens are of "
            f"{tokenizer_digest}; count these tokens and build the table from those counts"
        )


def table_digest(tables: np.ndarray) -> str:
    """Return "sha256:" + sha256 of the shape as text ("2,50257,1"), a newline, and the int32 little-endian bytes."""
    return tensor_digest(tables)


def _metadata(table: RouteTable) -> dict[str, str]:
    names = (*TEXT_FIELDS, *INTEGER_FIELDS, *DERIVED_FIELDS, "lower_bound", "digest", "split_digest")
    made_by = {"kind": KIND, "schema_version": str(SCHEMA_VERSION), "created_by": CREATED_BY}
    return made_by | {name: str(getattr(table, name)) for name in names}


def _from_file(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> RouteTable:
    """Derived fields are not read: they follow from the tensors."""
    names = [field.name for field in fields(HeavySplit)]
    return RouteTable(
        split=HeavySplit(**{name: tensors[name] for name in names}) if metadata["split_digest"] else None,
        tables=tensors["route_table"],
        load=tensors["load"],
        lower_bound=float(metadata["lower_bound"]),
        **{name: metadata[name] for name in TEXT_FIELDS},
        **{name: int(metadata[name]) for name in INTEGER_FIELDS},
    )


def _check_tables(tables: np.ndarray, num_experts: int, top_k: int) -> None:
    if tables.ndim != 3 or tables.dtype != np.int32 or 0 in tables.shape:
        found = f"{tables.dtype} {list(tables.shape)}"
        raise ValueError(f"route_table must be int32 [num_tables, num_keys, num_hashes], not {found}")
    check_range("route_table", tables, 0, num_experts - 1)
    if top_k == 1:
        return
    if tables.shape[2] != top_k:
        raise ValueError(f"route_table gives {tables.shape[2]} experts to a key, but top_k={top_k}")
    experts = np.sort(tables, axis=2)
    repeated = np.argwhere((experts[:, :, 1:] == experts[:, :, :-1]).any(axis=2))
    if len(repeated):
        table, key = repeated[0].tolist()
        found = tables[table, key].tolist()
        raise ValueError(f"table {table} gives key {key} the experts {found}, but {top_k} different ones are needed")


def _check_num_keys(table: RouteTable) -> None:
    expected = num_keys(
        table.hash_key, vocab_size=table.vocab_size, num_buckets=table.num_buckets, context_length=table.context_length
    )
    if table.tables.shape[1] != expected:
        raise ValueError(
            f"route_table has {table.tables.shape[1]} keys, but key {table.hash_key} with vocab_size={table.vocab_size}, "
            f"num_buckets={table.num_buckets}, context_length={table.context_length} has {expected}"
        )


def _check_turns(table: RouteTable) -> None:
    rotation_period, num_columns = table.rotation_period, table.tables.shape[2]
    if rotation_period < 1:
        raise ValueError(f"rotation_period={rotation_period} must be at least 1")
    if rotation_period > 1 and (table.hash_key != "token" or table.top_k != 1 or num_columns != rotation_period):
        raise ValueError(
            f"rotation_period={rotation_period} needs key token, top_k=1 and {rotation_period} columns, not {table.hash_key}, "
            f"{table.top_k} and {num_columns}"
        )


def _check_load(load: np.ndarray, num_tables: int, num_experts: int, ep_size: int) -> None:
    if load.shape != (num_tables, num_experts):
        raise ValueError(f"load has shape {load.shape}, but {num_tables} tables of {num_experts} experts are given")
    num_tokens = load.sum(axis=1).tolist()
    if min(num_tokens) != max(num_tokens):
        raise ValueError(f"all tables route the same tokens, but load counts {num_tokens}")
    check_experts(num_experts, ep_size)


def _worst_imbalance(load: np.ndarray) -> float:
    return max(max_over_mean(row) if row.any() else float("nan") for row in load)
