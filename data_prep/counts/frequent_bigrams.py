"""Count the tokens before each frequent token: they decide which part of it an occurrence belongs to."""

from dataclasses import dataclass

import numpy as np

from data_prep.counts.count_mixture import count_mixture
from data_prep.processes.mpi_ranks import ONE_PROCESS, MpiRanks
from data_prep.shards.mixture import Mixture


@dataclass(frozen=True, eq=False)
class FrequentBigrams:
    """The occurrences of frequent tokens after each previous token."""

    tokens_F: np.ndarray  # int64 [F], ids in order
    counts_FP: np.ndarray  # int64 [F, V + 1], the last column is for the first token of a context


def count_frequent_bigrams(
    mixture: Mixture,
    tokens_F: np.ndarray,
    *,
    vocab_size: int,
    context_length: int = 0,
    num_workers: int = 1,
    ranks: MpiRanks = ONE_PROCESS,
) -> FrequentBigrams:
    """Count the tokens before each of `tokens_F`; nothing is read if there are none.

    Collective over `ranks`: rank 0 alone gets the sum.
    """
    row_V = np.full(vocab_size, -1, dtype=np.int32)
    row_V[tokens_F] = np.arange(len(tokens_F))
    counted = _BeforeFrequent(row_V, len(tokens_F), context_length)
    counts = np.zeros(0, dtype=np.int64)
    if len(tokens_F):
        counts = count_mixture(mixture, counted, num_workers=num_workers, ranks=ranks)
    return FrequentBigrams(tokens_F, counts.reshape(len(tokens_F), vocab_size + 1))


@dataclass(frozen=True, eq=False)
class _BeforeFrequent:
    """Every occurrence of a frequent token, by its row and the token before it."""

    row_V: np.ndarray  # int32 [V], the token's row, or -1
    num_rows: int
    context_length: int
    cure = "raise --split_threshold or lower --workers"

    @property
    def num_previous(self) -> int:
        return len(self.row_V) + 1

    @property
    def num_cells(self) -> int:
        return self.num_rows * self.num_previous

    def cells(self, tokens: np.ndarray, lead: int) -> np.ndarray:
        row = self.row_V[tokens]
        index = np.flatnonzero(row[lead:] >= 0) + lead
        previous = tokens[index - 1]
        previous[index % (self.context_length or len(tokens)) == 0] = len(self.row_V)  # none, as in previous_tokens
        return row[index].astype(np.int64) * self.num_previous + previous
