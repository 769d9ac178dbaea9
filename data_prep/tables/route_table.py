"""A route table as a value: the experts of every key in each sparse layer, with their provenance.

Suffixes of arrays in this folder: E experts, R ranks, L tables (layers), K keys, C columns; of split tokens: V token
ids, F split (frequent) tokens, P = V + 1 previous tokens, the last of which is none, G groups of parts.
"""

from dataclasses import dataclass

import numpy as np

from data_prep.counts.hash_keys import num_keys
from data_prep.storage.tensor_file import check_range, tensor_digest
from data_prep.tables.expert_load import check_experts, rank_load, worst_max_over_mean
from data_prep.tables.frequent_tokens import FrequentTokenSplit, check_split


@dataclass(frozen=True, eq=False)
class RouteTable:
    """One table per sparse layer with its provenance; a RouteTable that exists is valid.

    `columns` says what the last axis of `tables` holds:
        hashes    the key's expert under each hash: one as a rule, several for MultiHash
        top_k     different experts, whose outputs a model adds up: DeepSeek-V4's tid2eid
        rotation  the expert at position p of a context in column p % rotation_period
    """

    tables: np.ndarray  # int32 [tables, keys, columns], 0..num_experts-1
    num_experts: int
    method: str  # a method of data_prep.tables.methods, or "imported"
    seed: int
    columns: str = "hashes"
    ep_size: int = 1  # number of ranks the table was balanced for
    hash_key: str = "token"  # what is looked up, see hash_keys.py
    vocab_size: int = 0  # number of token ids; 0: the number of keys
    num_buckets: int = 0  # of key bigram
    context_length: int = 0  # of key position; of other keys, that of the counts, 0: none
    tokenizer_digest: str = ""  # of the tokenizer whose ids are the keys
    corpus_digest: str = ""  # of the token shards that were counted
    lower_bound: float = 1.0  # the least max_over_mean that any table can have on that corpus
    load: np.ndarray | None = None  # int64 [tables, num_experts], (token, choice) pairs per expert; zeros: unknown
    split: FrequentTokenSplit | None = None  # of frequent tokens; the same for all tables

    def __post_init__(self):
        if self.load is None:
            object.__setattr__(self, "load", np.zeros((len(self.tables), self.num_experts), dtype=np.int64))
        _check_tables(self.tables, self.num_experts)
        if self.vocab_size == 0:
            object.__setattr__(self, "vocab_size", self.tables.shape[1])
        _check_num_keys(self)
        _check_columns(self)
        _check_load(self)
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
    def num_hashes(self) -> int:
        return self._num_columns("hashes")

    @property
    def top_k(self) -> int:
        return self._num_columns("top_k")

    @property
    def rotation_period(self) -> int:
        return self._num_columns("rotation")

    @property
    def num_choices(self) -> int:
        """Number of experts per token: num_hashes or top_k, one of which is 1."""
        return self.num_hashes * self.top_k

    @property
    def num_tokens(self) -> int:
        """Number of counted tokens; 0 if the table was made without counts."""
        return int(self.load[0].sum()) // self.num_choices

    @property
    def max_over_mean(self) -> float:
        """Predicted load imbalance of the worst table; nan if the table was made without counts."""
        return worst_max_over_mean(self.load)

    @property
    def rank_max_over_mean(self) -> float:
        """The same between ranks of num_experts / ep_size consecutive experts."""
        return worst_max_over_mean(rank_load(self.load, self.ep_size))

    @property
    def digest(self) -> str:
        """The digest of `tables` alone; split_digest covers the rest."""
        return tensor_digest(self.tables)

    @property
    def split_digest(self) -> str:
        return "" if self.split is None else self.split.digest

    def _num_columns(self, kind: str) -> int:
        return self.tables.shape[2] if self.columns == kind else 1


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
            f"the route table was made for tokenizer {table.tokenizer_digest} but the tokens were made with "
            f"{tokenizer_digest}; count these tokens and build the table from those counts"
        )


def _check_tables(tables: np.ndarray, num_experts: int) -> None:
    if tables.ndim != 3 or tables.dtype != np.int32 or 0 in tables.shape:
        raise ValueError(f"route_table must be int32 [tables, keys, columns], not {tables.dtype} {list(tables.shape)}")
    check_range("route_table", tables, 0, num_experts - 1)


def _check_num_keys(table: RouteTable) -> None:
    expected = num_keys(
        table.hash_key, vocab_size=table.vocab_size, num_buckets=table.num_buckets, context_length=table.context_length
    )
    if table.tables.shape[1] != expected:
        raise ValueError(
            f"route_table has {table.tables.shape[1]} keys, but key {table.hash_key} with "
            f"vocab_size={table.vocab_size}, num_buckets={table.num_buckets}, context_length={table.context_length} "
            f"has {expected}"
        )


def _check_columns(table: RouteTable) -> None:
    match table.columns:
        case "hashes":
            pass
        case "top_k":
            _check_different(table.tables)
        case "rotation":
            if table.hash_key != "token":
                raise ValueError(f"columns=rotation needs key token, not {table.hash_key}")
        case _:
            raise ValueError(f"columns={table.columns!r} is unknown; it must be hashes, top_k or rotation")


def _check_different(tables: np.ndarray) -> None:
    experts = np.sort(tables, axis=2)
    repeated = np.argwhere((experts[:, :, 1:] == experts[:, :, :-1]).any(axis=2))
    if len(repeated):
        table, key = repeated[0].tolist()
        raise ValueError(
            f"table {table} gives key {key} the experts {tables[table, key].tolist()}, "
            f"but {tables.shape[2]} different ones are needed"
        )


def _check_load(table: RouteTable) -> None:
    if table.load.shape != (table.num_tables, table.num_experts):
        raise ValueError(
            f"load has shape {table.load.shape}, but {table.num_tables} tables of {table.num_experts} experts are given"
        )
    num_pairs = table.load.sum(axis=1).tolist()
    if min(num_pairs) != max(num_pairs):
        raise ValueError(f"all tables route the same tokens, but load counts {num_pairs}")
    check_experts(table.num_experts, table.ep_size)
