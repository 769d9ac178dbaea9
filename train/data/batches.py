"""Batches: sequences cut from streams of tokens, in a shuffled order that any number of ranks shares."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from data_prep.counts.hash_keys import document_positions
from data_prep.shards.sequences import Sequences
from data_prep.shards.token_stream import TokenStream
from models.dispatch import DispatchPlan
from train.data.mixture_order import MixtureOrder
from train.data.validation_split import Subset


@dataclass(frozen=True)
class Batch:
    """One micro-batch: input_ids [B, S], and targets [B, S], the token that follows each input.

    weights: [B], 1 for a sequence that counts and 0 for one that only fills the batch up.
    predicted: a baseline's guess of each target [B, S], where the data come with predictions.
    position_ids: [B, S], 0 at the first token of each document, where documents do not see each other.
    plans: the plans of all sparse layers, where they were made ahead (train/prefetch/route_ahead.py).
    """

    input_ids: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    predicted: torch.Tensor | None = None
    position_ids: torch.Tensor | None = None
    plans: dict[int, list[DispatchPlan]] | None = None

    def to(self, device: torch.device) -> "Batch":
        moved = [None if t is None else t.to(device, non_blocking=True) for t in self.tensors]
        return Batch(*moved, plans=self.plans)

    @property
    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        return self.input_ids, self.targets, self.weights, self.predicted, self.position_ids

    @property
    def known(self) -> dict[str, torch.Tensor]:
        """What hashes may look at besides input_ids, as models/hash_keys.py's token_context takes it."""
        known = {"next_ids": self.targets, "predicted_ids": self.predicted, "position_ids": self.position_ids}
        return {name: ids for name, ids in known.items() if ids is not None}


class PackedSequences:
    """The sequences of one or more streams, or a subset of each, numbered from 0 without gaps; read as batches."""

    def __init__(
        self,
        streams: list[TokenStream],
        *,
        context_length: int,
        predictions: list[TokenStream] | None = None,
        end_token_id: int | None = None,
    ):
        """predictions: streams as long as `streams`, whose token n is a guess of token n + 1.
        end_token_id: ends documents that are not to see each other; None: they do.
        """
        _check_lengths(streams, predictions)
        self.streams, self.predictions, self.end_token_id = streams, predictions, end_token_id
        self._tokens = Sequences(streams, context_length=context_length)
        self._predicted = predictions and Sequences(predictions, context_length=context_length)
        self._choose([Subset(size) for size in self._tokens.sizes])

    def _choose(self, subsets: list[Subset]) -> None:
        self._subsets = subsets
        self.sizes = [subset.num_sequences for subset in subsets]  # of each stream
        self._starts = np.cumsum([0, *self.sizes])

    def subset(self, subsets: list[Subset]) -> "PackedSequences":
        """The same with fewer sequences: a subset for each stream."""
        chosen = copy.copy(self)
        chosen._choose(subsets)
        return chosen

    @property
    def num_sequences(self) -> int:
        return int(self._starts[-1])

    def batch(self, indices: np.ndarray) -> Batch:
        """Sequences by index; -1 stands for one that fills the batch up."""
        indices = np.asarray(indices)
        sequences = self._sequences(np.maximum(indices, 0))
        tokens = self._tokens.read(sequences)
        inputs = torch.from_numpy(tokens[:, :-1]).contiguous()
        targets = torch.from_numpy(tokens[:, 1:]).contiguous()
        weights = torch.from_numpy((indices >= 0).astype(np.float32))
        predicted = position_ids = None
        if self._predicted:
            predicted = torch.from_numpy(self._predicted.read(sequences, num_following=0))
        if self.end_token_id is not None:
            position_ids = torch.from_numpy(document_positions(tokens[:, :-1], end_token_id=self.end_token_id))
        return Batch(inputs, targets, weights, predicted, position_ids)

    def first(self, num_sequences: int) -> np.ndarray:
        """Indices of so many sequences: the first ones of each stream, which gets its share of them."""
        ends = self._starts * num_sequences // self.num_sequences
        counts = np.diff(ends)
        return np.concatenate([start + np.arange(n) for start, n in zip(self._starts, counts, strict=False)])

    def _sequences(self, indices: np.ndarray) -> np.ndarray:
        """The sequences of whole streams that indices of subsets stand for."""
        streams = np.searchsorted(self._starts, indices, side="right") - 1
        sequences = np.empty_like(indices)
        for stream in np.unique(streams).tolist():
            mine = streams == stream
            own = self._subsets[stream].sequences(indices[mine] - self._starts[stream])
            sequences[mine] = self._tokens.starts[stream] + own
        return sequences


def _check_lengths(streams: list[TokenStream], predictions: list[TokenStream] | None) -> None:
    for stream, predicted in zip(streams, predictions or streams, strict=True):
        if predicted.num_tokens != stream.num_tokens:
            raise ValueError(
                f"{predicted.folder} predicts {predicted.num_tokens} tokens but {stream.folder} holds "
                f"{stream.num_tokens}; make the predictions again"
            )


def micro_batch_indices(
    order: MixtureOrder, number: int, *, micro_batch_size: int, rank: int, world_size: int
) -> np.ndarray:
    """Sequence indices of this rank's micro-batch `number` of the run, counted from 0: int64 [micro_batch_size].

    Ranks take turns, so step s takes positions [s * G, (s + 1) * G) of the order whatever the number of ranks, G being
    the global batch: a run may go on with another number of them.
    """
    return order.samples((number * world_size + rank) * micro_batch_size, micro_batch_size)


def validation_batches(
    sequences: PackedSequences, *, num_sequences: int, micro_batch_size: int, rank: int, world_size: int
) -> Iterator[Batch]:
    """So many sequences in order, each on exactly one rank; every rank yields equally many batches."""
    per_pass = micro_batch_size * world_size
    num_passes = -(-num_sequences // per_pass)
    indices = np.full(num_passes * per_pass, -1)
    indices[:num_sequences] = sequences.first(num_sequences)
    for row in indices.reshape(num_passes, world_size, micro_batch_size)[:, rank]:
        yield sequences.batch(row)
