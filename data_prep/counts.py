"""How often each token occurs in a corpus: the counts and their file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.tensor_file import check_schema, read_tensors, write_tensors

SCHEMA_VERSION = 1
KIND = "token_counts"


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts of every token id of one corpus under one tokenizer."""

    counts: np.ndarray  # int64 [vocab_size], occurrences of each token id
    tokenizer_digest: str  # of the tokenizer that gave the ids their meaning
    corpus_digest: str  # of the token shards that were counted

    @property
    def vocab_size(self) -> int:
        return len(self.counts)

    @property
    def num_tokens(self) -> int:
        return int(self.counts.sum())


def read_counts(path: str | Path) -> Counts:
    """Read a counts file; ValueError where it is damaged, of another kind or contradicts itself."""
    tensors, metadata = read_tensors(path)
    check_schema(path, metadata, schema_version=SCHEMA_VERSION, kind=KIND)
    try:
        counts = Counts(tensors["counts"], metadata["tokenizer_digest"], metadata["corpus_digest"])
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
        "vocab_size": str(counts.vocab_size),
        "num_tokens": str(counts.num_tokens),
    }
    write_tensors(path, {"counts": counts.counts.astype(np.int64)}, metadata=metadata)
