"""Counts: the occurrences of each hash key in a corpus, and their file."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_prep.counts.hash_keys import check_vocab_size, num_keys
from data_prep.storage.tensor_file import check_schema, read_tensors, write_tensors

SCHEMA_VERSION = 1
KIND = "token_counts"
TEXT_FIELDS = ("tokenizer_digest", "corpus_digest", "hash_key")
INTEGER_FIELDS = ("vocab_size", "num_buckets", "context_length")


@dataclass(frozen=True, eq=False)
class Counts:
    """Occurrences of every key (hash_keys.py) in one corpus under one tokenizer.

    Counts of a mixture are those of one epoch: the occurrences in each part times its epochs, rounded, and summed.
    """

    counts: np.ndarray  # int64 [num_keys], occurrences of each key
    tokenizer_digest: str  # of the tokenizer that gave the ids their meaning
    corpus_digest: str  # of the counted token shards, with the epochs of a mixture's parts
    hash_key: str = "token"
    vocab_size: int = 0  # number of token ids; 0: the number of keys
    num_buckets: int = 0  # of key bigram
    context_length: int = 0  # tokens per context; 0: the corpus is one context

    def __post_init__(self):
        if self.vocab_size == 0:
            object.__setattr__(self, "vocab_size", len(self.counts))
        expected = num_keys(
            self.hash_key, vocab_size=self.vocab_size, num_buckets=self.num_buckets, context_length=self.context_length
        )
        if len(self.counts) != expected:
            raise ValueError(f"key {self.hash_key} has {expected} keys, but {len(self.counts)} counts are given")

    @property
    def num_tokens(self) -> int:
        return int(self.counts.sum())


def read_counts(path: str | Path) -> Counts:
    """Read a counts file; ValueError if it is damaged, of another kind or contradicts itself."""
    tensors, metadata = read_tensors(path)
    check_schema(path, metadata, kind=KIND, schema_version=SCHEMA_VERSION)
    try:
        counts = Counts(
            tensors["counts"],
            **{name: metadata[name] for name in TEXT_FIELDS},
            **{name: int(metadata[name]) for name in INTEGER_FIELDS},
        )
        num_tokens = int(metadata["num_tokens"])
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}; run data_prep.count_tokens again") from error
    if counts.num_tokens != num_tokens:
        raise ValueError(
            f"{path}: the counts sum to {counts.num_tokens} tokens but the file says {num_tokens}; "
            "it is damaged, run data_prep.count_tokens again"
        )
    return counts


def write_counts(path: str | Path, counts: Counts) -> None:
    """Write a counts file atomically; equal counts give equal bytes."""
    metadata = {"kind": KIND, "schema_version": str(SCHEMA_VERSION)}
    metadata |= {name: str(getattr(counts, name)) for name in (*TEXT_FIELDS, *INTEGER_FIELDS, "num_tokens")}
    write_tensors(path, {"counts": counts.counts.astype(np.int64)}, metadata=metadata)


def with_vocab_size(counts: Counts, vocab_size: int | None) -> Counts:
    """Append ids that never occur: models pad their vocabulary (51200 = 50 * 1024 for GPT-2's 50257)."""
    if vocab_size is None or vocab_size == counts.vocab_size:
        return counts
    if vocab_size < counts.vocab_size:
        raise ValueError(
            f"--vocab_size {vocab_size} is smaller than the {counts.vocab_size} token ids that were counted; "
            f"give at least {counts.vocab_size}"
        )
    check_vocab_size(vocab_size)
    if counts.hash_key not in ("token", "previous", "position"):  # such as the buckets of bigrams
        raise ValueError(
            f"{counts.hash_key} keys were counted for vocab_size={counts.vocab_size}, not {vocab_size}; "
            f"count again with --vocab_size {vocab_size}"
        )
    padded = counts.counts
    if counts.hash_key in ("token", "previous"):  # the last key of "previous" is "none" and stays last
        unseen = np.zeros(vocab_size - counts.vocab_size, dtype=np.int64)
        padded = np.insert(padded, counts.vocab_size, unseen)
    return replace(counts, counts=padded, vocab_size=vocab_size)
