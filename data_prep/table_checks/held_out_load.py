"""The load that a route table gives experts on held-out tokens, as a whole and batch by batch.

Suffixes of arrays in this folder: E experts, R ranks, L tables (layers), N pieces of contexts, B batches.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_prep.shards.sequences import Sequences
from data_prep.shards.token_stream import TokenStream
from data_prep.tables.apply_table import apply_table
from data_prep.tables.assignments import random_uint64
from data_prep.tables.expert_load import rank_load
from data_prep.tables.route_table import RouteTable

READ_TOKENS = 2**20  # per step: 8 MiB of int64
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


class Contexts:
    """The sequences of a stream as training reads them, or at most `max_tokens` of their tokens, evenly spaced."""

    def __init__(
        self, stream: TokenStream, *, context_length: int, max_tokens: int, predicted: TokenStream | None = None
    ):
        """predicted: a prediction of the next token for each token of the stream."""
        self.stream, self.context_length = stream, context_length
        self._sequences = Sequences(stream, context_length=context_length)
        self._predicted = None if predicted is None else Sequences(predicted, context_length=context_length)
        available = self._sequences.num_sequences
        if available == 0:
            raise ValueError(
                f"{stream.folder} holds {stream.num_tokens} tokens, not one context of {context_length} and the token "
                "after it; use more data or a smaller --context_length"
            )
        if predicted is not None and predicted.num_tokens != stream.num_tokens:
            raise ValueError(
                f"{predicted.folder} predicts {predicted.num_tokens} tokens but {stream.folder} has "
                f"{stream.num_tokens}; predict the same tokens"
            )
        self.num_contexts = max(1, min(available, max_tokens // context_length))
        self._indices = np.arange(self.num_contexts) * available // self.num_contexts

    @property
    def num_tokens(self) -> int:
        return self.num_contexts * self.context_length

    def read(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield tokens [n, S], and for each the next one [n, S], or the prediction of it, n contexts at a time."""
        for indices in np.array_split(self._indices, -(-self.num_tokens // READ_TOKENS)):
            tokens = self._sequences.read(indices)
            future = tokens[:, 1:]
            if self._predicted is not None:
                future = self._predicted.read(indices, num_following=0)
            yield tokens[:, :-1], future


def load_of_pieces(table: RouteTable, layer: int, contexts: Contexts, *, piece: int) -> np.ndarray:
    """Return the (token, choice) pairs of each expert in every piece of `piece` tokens: int32 [num_pieces, E].

    Contexts are cut into pieces from their start; a shorter rest at their end is skipped.
    """
    parts = []
    for tokens, future in contexts.read():
        experts = apply_table(table, layer, tokens, future=future)  # [n, S, choices]
        num_pieces = contexts.context_length // piece
        experts = experts[:, : num_pieces * piece].reshape(len(tokens) * num_pieces, -1)
        cells = experts + np.arange(len(experts))[:, None] * table.num_experts
        counts = np.bincount(cells.ravel(), minlength=len(experts) * table.num_experts)
        parts.append(counts.reshape(len(experts), -1).astype(np.int32))
    return np.concatenate(parts)


def batch_loads(
    table: RouteTable, layer: int, contexts: Contexts, *, sizes: list[int], ep_size: int, seed: int = 0
) -> list[BatchLoad]:
    """Measure batches of each size; sizes above the data set's are skipped."""
    loads = []
    for size in sorted(sizes):
        piece = min(size, contexts.context_length)
        pieces_NE = load_of_pieces(table, layer, contexts, piece=piece)
        if size // piece <= len(pieces_NE):
            loads.append(_batch_load(pieces_NE, size // piece, piece, ep_size=ep_size, seed=seed))
    return loads


def _batch_load(pieces_NE: np.ndarray, num_pieces: int, piece: int, *, ep_size: int, seed: int) -> BatchLoad:
    draws = random_uint64(NUM_SAMPLES * num_pieces, seed=seed, variant=0) % np.uint64(len(pieces_NE))
    batches_BE = np.zeros((NUM_SAMPLES, pieces_NE.shape[1]), dtype=np.int64)
    for indices in draws.reshape(num_pieces, NUM_SAMPLES).astype(np.int64):
        batches_BE += pieces_NE[indices]
    expert, rank = _imbalances(batches_BE), _imbalances(rank_load(batches_BE, ep_size))
    return BatchLoad(
        batch_tokens=num_pieces * piece,
        mean=float(expert.mean()),
        p99=float(np.quantile(expert, 0.99)),
        worst=float(expert.max()),
        worst_possible=_worst_possible(pieces_NE, num_pieces),
        rank_mean=float(rank.mean()),
        rank_p99=float(np.quantile(rank, 0.99)),
        rank_worst_possible=_worst_possible(rank_load(pieces_NE, ep_size), num_pieces),
    )


def _imbalances(load_BE: np.ndarray) -> np.ndarray:
    return load_BE.max(axis=1) * load_BE.shape[1] / load_BE.sum(axis=1)


def _worst_possible(pieces_NE: np.ndarray, num_pieces: int) -> float:
    """Return max / mean of the worst batch: for each expert, the batch of the pieces that load it most."""
    fullest_E = np.partition(pieces_NE, len(pieces_NE) - num_pieces, axis=0)[-num_pieces:].sum(axis=0, dtype=np.int64)
    pairs = int(pieces_NE[0].sum()) * num_pieces
    return int(fullest_E.max()) * pieces_NE.shape[1] / pairs


def whole_load(table: RouteTable, layer: int, contexts: Contexts) -> np.ndarray:
    """Return the (token, choice) pairs of each expert on the whole data set, int64 [E]."""
    load_E = np.zeros(table.num_experts, dtype=np.int64)
    for tokens, future in contexts.read():
        experts = apply_table(table, layer, tokens, future=future)
        load_E += np.bincount(experts.ravel(), minlength=table.num_experts)
    return load_E
