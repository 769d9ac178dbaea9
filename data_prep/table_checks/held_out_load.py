"""The load that a route table gives experts on held-out tokens, as a whole and batch by batch.

Suffixes of arrays in this folder: E experts, R ranks, L tables (layers), N pieces of contexts, B batches.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from data_prep.table_checks.held_out_contexts import Contexts
from data_prep.table_checks.worst_batch import LoadHistogram
from data_prep.tables.apply_table import apply_table
from data_prep.tables.assignments import random_uint64
from data_prep.tables.expert_load import rank_load
from data_prep.tables.route_table import RouteTable

NUM_SAMPLES = 1000  # batches per batch size


@dataclass(frozen=True)
class BatchLoad:
    """Load imbalance, max / mean, of batches of one size drawn at random from the contexts of a data set."""

    batch_tokens: int
    mean: float
    p99: float  # one batch in a hundred is worse
    worst: float  # of the batches drawn
    worst_possible: float  # of all batches that could be drawn: that of the contexts that load one expert most
    rank_mean: float  # the same for ranks
    rank_p99: float
    rank_worst_possible: float  # bounds the memory of a rank for the tokens that it receives


def whole_load(table: RouteTable, layer: int, contexts: Contexts) -> np.ndarray:
    """Return the (token, choice) pairs of each expert on the whole data set, int64 [E]."""
    load_E = np.zeros(table.num_experts, dtype=np.int64)
    for tokens, future in contexts.read():
        experts = apply_table(table, layer, tokens, future=future)
        load_E += np.bincount(experts.ravel(), minlength=table.num_experts)
    return load_E


def batch_loads(
    table: RouteTable, layer: int, contexts: Contexts, *, sizes: list[int], ep_size: int, seed: int = 0
) -> list[BatchLoad]:
    """Measure batches of each size, in one pass over the contexts; sizes above the data set's are skipped."""
    if min(sizes) < 1:
        raise ValueError(f"--batch_tokens {min(sizes)} must be at least 1")
    samples = [_Samples(size, contexts, table.num_experts, ep_size=ep_size, seed=seed) for size in sorted(sizes)]
    samples = [each for each in samples if each.pieces_per_batch <= each.num_pieces]
    for tokens, future in contexts.read() if samples else ():
        experts = apply_table(table, layer, tokens, future=future)  # [n, S, choices]
        for each in samples:
            each.add(experts)
    return [each.batch_load() for each in samples]


class _Samples:
    """Batches of one size, drawn before the contexts are read and filled while they are read."""

    def __init__(self, size: int, contexts: Contexts, num_experts: int, *, ep_size: int, seed: int):
        self.piece = min(size, contexts.context_length)
        self.num_pieces = contexts.num_contexts * (contexts.context_length // self.piece)
        self.pieces_per_batch = size // self.piece
        self._ep_size = ep_size
        num_draws = NUM_SAMPLES * self.pieces_per_batch if self.pieces_per_batch <= self.num_pieces else 0
        draws = (random_uint64(num_draws, seed=seed, variant=0) % np.uint64(self.num_pieces)).astype(np.int64)
        order = np.argsort(draws, kind="stable")
        self._draws, self._batches = draws[order], order % NUM_SAMPLES  # the pieces drawn, in order, for these batches
        self._load_BE = np.zeros((NUM_SAMPLES, num_experts), dtype=np.int64)
        self._experts, self._ranks = LoadHistogram(), LoadHistogram()
        self._num_read = 0  # pieces

    def add(self, experts: np.ndarray) -> None:
        """Add the next contexts, [n, S, choices]."""
        pieces_NE = piece_loads(experts, self.piece, num_experts=self._load_BE.shape[1])
        num_pieces, num_experts = pieces_NE.shape
        first, last = np.searchsorted(self._draws, [self._num_read, self._num_read + num_pieces])
        drawn = (self._batches[first:last], self._draws[first:last] - self._num_read)
        times_BN = csr_array((np.ones(last - first, dtype=np.int64), drawn), shape=(NUM_SAMPLES, num_pieces))
        self._load_BE += (times_BN @ pieces_NE).toarray()
        self._experts.add(pieces_NE)
        self._ranks.add(_rank_loads(pieces_NE, self._ep_size))
        self._num_read += num_pieces

    def batch_load(self) -> BatchLoad:
        expert, rank = _imbalances(self._load_BE), _imbalances(rank_load(self._load_BE, self._ep_size))
        pairs, num_experts = int(self._load_BE[0].sum()), self._load_BE.shape[1]  # every batch has as many
        return BatchLoad(
            batch_tokens=self.pieces_per_batch * self.piece,
            mean=float(expert.mean()),
            p99=float(np.quantile(expert, 0.99)),
            worst=float(expert.max()),
            worst_possible=self._experts.worst_load(self.pieces_per_batch) * num_experts / pairs,
            rank_mean=float(rank.mean()),
            rank_p99=float(np.quantile(rank, 0.99)),
            rank_worst_possible=self._ranks.worst_load(self.pieces_per_batch) * self._ep_size / pairs,
        )


def piece_loads(experts: np.ndarray, piece: int, *, num_experts: int) -> csr_array:
    """Return the (token, choice) pairs of each expert in every piece of `piece` tokens: sparse int64 [N, E].

    experts: [n, S, choices]. Contexts are cut into pieces from their start; a shorter rest at their end is skipped.
    """
    num_contexts, context_length, num_choices = experts.shape
    num_pieces = num_contexts * (context_length // piece)
    width = piece * num_choices
    indices = experts[:, : context_length // piece * piece].reshape(num_pieces * width)
    return _summed(np.ones(len(indices), dtype=np.int64), indices, np.arange(num_pieces + 1) * width, num_experts)


def _rank_loads(pieces_NE: csr_array, ep_size: int) -> csr_array:
    per_rank = pieces_NE.shape[1] // ep_size
    return _summed(pieces_NE.data.copy(), pieces_NE.indices // per_rank, pieces_NE.indptr.copy(), ep_size)


def _summed(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, num_columns: int) -> csr_array:
    """Return a matrix in which each column of a row occurs once."""
    matrix = csr_array((data, indices, indptr), shape=(len(indptr) - 1, num_columns))
    matrix.sum_duplicates()
    return matrix


def _imbalances(load_BE: np.ndarray) -> np.ndarray:
    return load_BE.max(axis=1) * load_BE.shape[1] / load_BE.sum(axis=1)
