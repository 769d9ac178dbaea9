"""Make a route table from counts: every hash key, every method, any number of layers, hashes or choices."""

from dataclasses import dataclass, fields, replace

import numpy as np

from data_prep.counts.counts_file import Counts
from data_prep.counts.frequent_bigrams import FrequentBigrams
from data_prep.counts.hash_keys import COUNTED_AS
from data_prep.storage.memory import check_memory
from data_prep.tables.expert_load import check_experts, expert_load, lower_bound
from data_prep.tables.frequent_tokens import FrequentTokenSplit, frequent_tokens, max_part_tokens, place_parts
from data_prep.tables.methods import HAVE_ROTATION, HAVE_TOP_K, METHODS, NEED_EMBEDDINGS, MethodInputs, make_table
from data_prep.tables.rotation import make_rotation_table, rotated_split, rotation_experts
from data_prep.tables.route_table import RouteTable


@dataclass(frozen=True)
class TableOptions:
    """Options that decide a table, besides counts, embeddings and tokens; ValueError names those that conflict."""

    num_experts: int
    method: str = "balanced"  # one of METHODS
    hash_key: str = "token"  # one of hash_keys.KEYS
    num_tables: int = 1  # one per sparse layer
    num_hashes: int = 1  # MultiHash: different tables per layer
    top_k: int = 1  # different experts per token, for models that add up their outputs
    rotation_period: int = 1  # above 1: the expert of a token rotates with its position
    seed: int = 0
    ep_size: int = 1  # ranks that share the experts
    split_frequent_tokens: bool = False  # over several experts, by the token before them
    split_threshold: float = 1.0  # split tokens above this share of an expert's mean load

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not field.type and (field.type, type(value)) != (float, int):
                raise ValueError(f"{field.name}={value!r} must be of type {field.type.__name__}")
        if self.num_tables < 1:
            raise ValueError(f"--num_tables {self.num_tables} must be at least 1: one table per sparse layer")
        check_experts(self.num_experts, self.ep_size)
        _check_method(self)
        _check_columns(self)

    @property
    def columns(self) -> str:
        """The meaning of the last axis of the table."""
        return "rotation" if self.rotation_period > 1 else "top_k" if self.top_k > 1 else "hashes"


def make_route_table(
    counts: Counts,
    options: TableOptions,
    *,
    embeddings: np.ndarray | None = None,
    bigrams: FrequentBigrams | None = None,
    context_length: int = 0,
) -> RouteTable:
    """Return the tables over the keys of `counts` with their predicted load.

    Keys next and predicted use counts of tokens. `embeddings`, float [num_keys, hidden_size], are for the methods that
    cluster. Splitting frequent tokens needs the `bigrams` of the tokens_to_split, counted in contexts of
    `context_length` as in training.
    """
    _check_inputs(options, counts, embeddings, bigrams)
    inputs = MethodInputs(
        counts.counts, options.num_experts, seed=options.seed, ep_size=options.ep_size, embeddings=embeddings
    )
    split = None
    if options.split_frequent_tokens:
        split, inputs = _without_frequent_tokens(inputs, options, bigrams)
    tables, loads, split = _make_tables(inputs, options, split)
    choices = options.num_hashes * options.top_k * options.rotation_period  # a key's tokens are divided among them
    return RouteTable(
        tables=tables,
        num_experts=options.num_experts,
        method=options.method,
        seed=options.seed,
        columns=options.columns,
        ep_size=options.ep_size,
        hash_key=options.hash_key,
        vocab_size=counts.vocab_size,
        num_buckets=counts.num_buckets,
        context_length=counts.context_length or context_length,
        tokenizer_digest=counts.tokenizer_digest,
        corpus_digest=counts.corpus_digest,
        lower_bound=lower_bound(inputs.counts, options.num_experts, total=counts.num_tokens, choices=choices),
        load=loads,
        split=split,
    )


def tokens_to_split(counts: Counts, options: TableOptions) -> np.ndarray:
    """Return the ids that --split_frequent_tokens splits, in order: none without it."""
    if not options.split_frequent_tokens:
        return np.zeros(0, dtype=np.int64)
    return frequent_tokens(counts.counts, options.num_experts, split_threshold=options.split_threshold)


def _make_tables(
    inputs: MethodInputs, options: TableOptions, split: FrequentTokenSplit | None
) -> tuple[np.ndarray, np.ndarray, FrequentTokenSplit | None]:
    """Return the tables of all layers, their loads, and the split that goes with them."""
    layers, method = range(options.num_tables), options.method
    if options.columns == "rotation":
        expert_CE = rotation_experts(options.num_experts, options.rotation_period, ep_size=options.ep_size)
        made = [make_rotation_table(inputs, method, expert_CE, layer=layer) for layer in layers]
        split = None if split is None else rotated_split(split, expert_CE)
    else:
        sizes = {"num_hashes": options.num_hashes, "top_k": options.top_k}
        made = [make_table(inputs, method, layer=layer, **sizes) for layer in layers]
    tables, loads = zip(*made, strict=True)
    return np.stack(tables), np.stack(loads), split


def _without_frequent_tokens(
    inputs: MethodInputs, options: TableOptions, bigrams: FrequentBigrams
) -> tuple[FrequentTokenSplit | None, MethodInputs]:
    """Return the split of the frequent tokens, and the inputs that are left for the table."""
    counts_V, num_experts, threshold = inputs.counts, options.num_experts, options.split_threshold
    tokens_F, bigrams_FP = bigrams.tokens_F, bigrams.counts_FP
    if len(tokens_F) == 0:
        return None, inputs
    max_tokens = max_part_tokens(counts_V, num_experts, split_threshold=threshold)
    split, load_E = place_parts(
        counts_V, tokens_F, bigrams_FP, num_experts, max_tokens=max_tokens, ep_size=options.ep_size
    )
    other_counts = counts_V.copy()
    other_counts[tokens_F] = 0
    start_load_E = expert_load(split.start_experts, bigrams_FP[:, -1], num_experts)
    return split, replace(inputs, counts=other_counts, base_load_E=load_E, start_load_E=start_load_E)


def _check_inputs(
    options: TableOptions, counts: Counts, embeddings: np.ndarray | None, bigrams: FrequentBigrams | None
) -> None:
    method, hash_key = options.method, options.hash_key
    if COUNTED_AS[hash_key] != counts.hash_key:
        raise ValueError(
            f"--hash_key {hash_key} needs counts of key {COUNTED_AS[hash_key]}, but these are of key "
            f"{counts.hash_key}; run data_prep.count_tokens --hash_key {COUNTED_AS[hash_key]}"
        )
    if (method in NEED_EMBEDDINGS) != (embeddings is not None):
        needed = "needs" if method in NEED_EMBEDDINGS else "takes no"
        raise ValueError(f"--method {method} {needed} --embeddings MODEL_DIR of a trained model")
    if options.split_frequent_tokens:
        _check_bigrams(tokens_to_split(counts, options), bigrams)
    num_columns, num_keys = options.num_hashes * options.top_k * options.rotation_period, len(counts.counts)
    check_memory(
        12 * options.num_tables * num_keys * num_columns,  # int32, once more while tables are joined and checked
        purpose=f"{options.num_tables:,} tables of {num_keys:,} keys x {num_columns:,} columns",
        cure="lower --num_tables, --num_hashes, --top_k or --rotation_period",
    )


def _check_bigrams(tokens_F: np.ndarray, bigrams: FrequentBigrams | None) -> None:
    if bigrams is None:
        raise ValueError("--split_frequent_tokens needs the counted tokens; name their folder with --tokens")
    if not np.array_equal(bigrams.tokens_F, tokens_F):
        raise ValueError(
            f"bigrams were counted for {len(bigrams.tokens_F)} frequent tokens, but {len(tokens_F)} others are split; "
            "count those of tokens_to_split"
        )


def _check_method(options: TableOptions) -> None:
    method, hash_key = options.method, options.hash_key
    if method not in METHODS:
        raise ValueError(f"--method {method} is unknown; choose one of {', '.join(METHODS)}")
    if hash_key not in COUNTED_AS:
        raise ValueError(f"--hash_key {hash_key} is unknown; choose one of {', '.join(COUNTED_AS)}")
    if method in NEED_EMBEDDINGS and COUNTED_AS[hash_key] != "token":
        raise ValueError(f"--method {method} clusters tokens, but the key is {hash_key}; count with --hash_key token")


def _check_columns(options: TableOptions) -> None:
    """Allow at most one of MultiHash, top-k and rotation, and splitting with rotation alone."""
    method, hash_key, num_hashes, top_k = options.method, options.hash_key, options.num_hashes, options.top_k
    period, found = options.rotation_period, f"not {method}, {hash_key}, {num_hashes} and {top_k}"
    if num_hashes < 1 or top_k < 1 or (num_hashes > 1 and top_k > 1):
        raise ValueError(f"--num_hashes {num_hashes} and --top_k {top_k} must be at least 1, and one of them 1")
    if top_k > 1 and method not in HAVE_TOP_K:
        raise ValueError(f"--method {method} has no --top_k {top_k}; choose one of {', '.join(HAVE_TOP_K)}")
    if period < 1:
        raise ValueError(f"--rotation_period {period} must be at least 1")
    if period > 1 and (method not in HAVE_ROTATION or hash_key != "token" or num_hashes * top_k > 1):
        raise ValueError(
            f"--rotation_period {period} needs --method {' or '.join(HAVE_ROTATION)}, key token, one hash and top_k 1, "
            f"{found}"
        )
    if options.split_frequent_tokens and (method != "balanced" or hash_key != "token" or num_hashes * top_k > 1):
        raise ValueError(f"--split_frequent_tokens needs --method balanced, key token, one hash and top_k 1, {found}")
