"""The route-table file: which expert serves which key in each sparse layer, and how that was decided."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.assignments import check_experts, max_over_mean
from data_prep.tensor_file import check_schema, read_tensors, write_tensors

SCHEMA_VERSION = 1
KIND = "route_table"
CREATED_BY = "data_prep.route_table 1"
MAKE_AGAIN = "make it again with data_prep.build_table"
TEXT_FIELDS = ("method", "key", "tokenizer_digest", "corpus_digest")
INTEGER_FIELDS = ("num_experts", "seed", "ep_size")
DERIVED_FIELDS = ("vocab_size", "num_tables", "num_hashes", "num_tokens", "max_over_mean", "rank_max_over_mean")


@dataclass(frozen=True, eq=False)
class RouteTable:
    """One table per sparse layer with its provenance; a RouteTable that exists is valid."""

    tables: np.ndarray  # int32 [num_tables, num_keys, num_hashes], the expert of each key, 0..num_experts-1
    num_experts: int
    method: str  # "balanced", "random", "round_robin"
    seed: int
    ep_size: int = 1  # number of ranks the table was balanced for
    key: str = "token"  # what is looked up: the current token's id
    tokenizer_digest: str = ""  # of the tokenizer whose ids are the keys
    corpus_digest: str = ""  # of the token shards that were counted
    lower_bound: float = 1.0  # the least max_over_mean any table can have on that corpus
    load: np.ndarray | None = None  # int64 [num_tables, num_experts], counted tokens per expert; zeros: not counted

    def __post_init__(self):
        if self.load is None:
            object.__setattr__(self, "load", np.zeros((len(self.tables), self.num_experts), dtype=np.int64))
        _check_tables(self.tables, self.num_experts)
        _check_load(self.load, self.num_tables, self.num_experts, self.ep_size)

    @property
    def num_tables(self) -> int:
        return self.tables.shape[0]

    @property
    def vocab_size(self) -> int:
        return self.tables.shape[1]

    @property
    def num_hashes(self) -> int:
        return self.tables.shape[2]

    @property
    def num_tokens(self) -> int:
        """Number of counted tokens, 0 where the table was made without counts."""
        return int(self.load[0].sum())

    @property
    def max_over_mean(self) -> float:
        """Predicted load imbalance of the worst table; nan where the table was made without counts."""
        return _worst_imbalance(self.load)

    @property
    def rank_max_over_mean(self) -> float:
        """The same between ranks of num_experts / ep_size consecutive experts."""
        return _worst_imbalance(self.load.reshape(self.num_tables, self.ep_size, -1).sum(axis=2))

    @property
    def digest(self) -> str:
        return table_digest(self.tables)


def read_route_table(path: str | Path) -> RouteTable:
    """Read and check a route table; ValueError where its digest, shape or range is wrong."""
    tensors, metadata = read_tensors(path)
    check_schema(path, metadata, schema_version=SCHEMA_VERSION, kind=KIND)
    try:
        table = _from_file(tensors, metadata)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: {error}; {MAKE_AGAIN}") from error
    for name in ("digest", "num_tokens"):
        found, expected = str(getattr(table, name)), metadata.get(name)
        if found != expected:
            raise ValueError(f"{path} has {name} {found} but says {expected}: damaged; {MAKE_AGAIN}")
    return table


def write_route_table(path: str | Path, table: RouteTable) -> None:
    """Write `table` atomically; equal tables give equal bytes."""
    write_tensors(path, {"route_table": table.tables, "load": table.load}, metadata=_metadata(table))


def check_belongs(table: RouteTable, *, vocab_size: int, num_experts: int, tokenizer_digest: str) -> None:
    """Raise ValueError unless the table was made for this vocabulary, number of experts and tokenizer."""
    if table.vocab_size != vocab_size:
        raise ValueError(
            f"the route table has {table.vocab_size} keys but the model has vocab_size={vocab_size}; "
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
    shape = ",".join(str(size) for size in tables.shape)
    return "sha256:" + hashlib.sha256(f"{shape}\n".encode() + tables.astype("<i4").tobytes()).hexdigest()


def _metadata(table: RouteTable) -> dict[str, str]:
    names = (*TEXT_FIELDS, *INTEGER_FIELDS, *DERIVED_FIELDS, "lower_bound", "digest")
    made_by = {"kind": KIND, "schema_version": str(SCHEMA_VERSION), "created_by": CREATED_BY}
    return made_by | {name: str(getattr(table, name)) for name in names}


def _from_file(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> RouteTable:
    """Derived fields are not read: they follow from the tensors."""
    return RouteTable(
        tables=tensors["route_table"],
        load=tensors["load"],
        lower_bound=float(metadata["lower_bound"]),
        **{name: metadata[name] for name in TEXT_FIELDS},
        **{name: int(metadata[name]) for name in INTEGER_FIELDS},
    )


def _check_tables(tables: np.ndarray, num_experts: int) -> None:
    if tables.ndim != 3 or tables.dtype != np.int32 or 0 in tables.shape:
        found = f"{tables.dtype} {list(tables.shape)}"
        raise ValueError(f"route_table must be int32 [num_tables, num_keys, num_hashes], not {found}")
    lowest, highest = int(tables.min()), int(tables.max())
    if lowest < 0 or highest >= num_experts:
        raise ValueError(f"route_table holds experts {lowest}..{highest}, but only 0..{num_experts - 1} exist")


def _check_load(load: np.ndarray, num_tables: int, num_experts: int, ep_size: int) -> None:
    if load.shape != (num_tables, num_experts):
        raise ValueError(f"load has shape {load.shape}, but {num_tables} tables of {num_experts} experts are given")
    num_tokens = load.sum(axis=1).tolist()
    if min(num_tokens) != max(num_tokens):
        raise ValueError(f"all tables route the same tokens, but load counts {num_tokens}")
    check_experts(num_experts, ep_size)


def _worst_imbalance(load: np.ndarray) -> float:
    return max(max_over_mean(row) if row.any() else float("nan") for row in load)
