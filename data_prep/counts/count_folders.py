"""Count the hash keys of folders of token shards, or of mixtures of them."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data_prep.counts.count_mixture import check_context_length, count_mixture
from data_prep.counts.counts_file import Counts
from data_prep.counts.hash_keys import COUNTED_AS, num_keys, route_keys
from data_prep.processes.mpi_ranks import ONE_PROCESS, MpiRanks
from data_prep.shards.mixture import read_mixtures


def count_folders(
    folders: list[str | Path],
    *,
    hash_key: str = "token",
    vocab_size: int | None = None,
    num_buckets: int = 0,
    context_length: int = 0,
    num_workers: int = 1,
    ranks: MpiRanks = ONE_PROCESS,
) -> Counts:
    """Count the keys of all folders, or mixtures of them, together; ValueError if their tokenizers differ.

    With `context_length` S, sequence i of a folder is its tokens [i * S, i * S + S), as in training; without it, the
    whole folder is one context. Bigram buckets depend on the model's padded vocabulary: give it as `vocab_size`.
    Collective over `ranks`: rank 0 alone gets the sum.
    """
    check_context_length(context_length)
    mixture = read_mixtures(folders)
    keys = _Keys(
        hash_key=COUNTED_AS.get(hash_key, hash_key),
        vocab_size=_padded_vocab_size(vocab_size, mixture.vocab_size),
        num_buckets=num_buckets if hash_key == "bigram" else 0,
        context_length=context_length if COUNTED_AS.get(hash_key) != "token" else 0,
    )
    counts = count_mixture(mixture, keys, num_workers=num_workers, ranks=ranks)
    return Counts(counts, mixture.tokenizer_digest, mixture.corpus_digest, **asdict(keys))


@dataclass(frozen=True)
class _Keys:
    """Every token, by its hash key."""

    hash_key: str
    vocab_size: int
    num_buckets: int
    context_length: int
    cure = "lower --num_buckets, --context_length or --workers"

    @property
    def num_cells(self) -> int:
        return num_keys(**asdict(self))

    def cells(self, tokens: np.ndarray, lead: int) -> np.ndarray:
        return route_keys(tokens, **asdict(self))[lead:]


def _padded_vocab_size(vocab_size: int | None, counted: int) -> int:
    if vocab_size is not None and vocab_size < counted:
        raise ValueError(
            f"--vocab_size {vocab_size} is smaller than the tokenizer's {counted}; give at least {counted}"
        )
    return vocab_size or counted
