"""How often each key occurs in a corpus: the counts and their file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.counts.hash_keys import num_keys
from data_prep.storage.tensor_file import check_schema, read_tensors, write_tensors

SCHEMA_VERSION = 3  # 1 knew no keys but tokens, 2 had no digest of the file; both are still read
KIND = "token_counts"


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts of every key of one corpus under one tokenizer; the keys of hash_keys.py, token ids unless said.

    Of a mixture they are those of an epoch: occurrences in each part times its weight, rounded, and summed.
    """

    counts: np.ndarray  # int64 [num_keys], occurrences of each key
    tokenizer_digest: str  # of the tokenizer that gave the ids their meaning
    corpus_digest: str  # of the token shards that were counted, with their weights where these are not 1
    hash_key: str = "token"
    vocab_size: int = 0  # number of token ids; 0: as many as there are keys
    num_buckets: int = 0  # of key bigram
    context_length: int = 0  # where contexts begin anew; 0: the corpus is one context

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
    """Read a counts file; ValueError where it is damaged, of another kind or contradicts itself."""
    tensors, metadata = read_tensors(path)
    check_schema(path, metadata, schema_versions=(1, 2, SCHEMA_VERSION), kind=KIND, digest_since=3)
    try:
        counts = Counts(
            tensors["counts"],
            metadata["tokenizer_digest"],
            metadata["corpus_digest"],
            hash_key=metadata.get("hash_key", "token"),
            vocab_size=int(metadata["vocab_size"]),
            num_buckets=int(metadata.get("num_buckets", 0)),
            context_length=int(metadata.get("context_length", 0)),
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
    metadata = {
        "kind": KIND,
        "schema_version": str(SCHEMA_VERSION),
        "tokenizer_digest": counts.tokenizer_digest,
        "corpus_digest": counts.corpus_digest,
        "hash_key": counts.hash_key,
        "vocab_size": str(counts.vocab_size),
        "num_buckets": str(counts.num_buckets),
        "context_length": str(counts.context_length),
        "num_tokens": str(counts.num_tokens),
    }
    write_tensors(path, {"counts": counts.counts.astype(np.int64)}, metadata=metadata)
