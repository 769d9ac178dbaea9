"""Batches of sequences, read by their addresses (part, sequence), and the share of each rank in them."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from data_prep.counts.hash_keys import document_positions
from data_prep.shards.sequences import Sequences, make_addresses, read_sequences
from data_prep.shards.token_stream import TokenStream
from models.dispatch import DispatchPlan
from train.data.mixture_order import MixtureOrder
from train.data.validation_split import Subset


@dataclass(frozen=True)
class Batch:
    """One micro-batch: input_ids [B, S], and targets [B, S], the token that follows each input.

    weights: [B], 1 for a sequence that counts and 0 for one that pads the batch.
    predicted: a baseline's guess of each target [B, S], if the data come with predictions.
    position_ids: [B, S], 0 at the first token of each document, if documents are masked from each other.
    plans: the dispatch plans of all sparse layers, if they were made ahead (train/prefetch/route_ahead.py).
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
        """Inputs of hashes besides input_ids, as keyword arguments of models/hash_keys.py's token_context."""
        known = {"next_ids": self.targets, "predicted_ids": self.predicted, "position_ids": self.position_ids}
        return {name: ids for name, ids in known.items() if ids is not None}


class PackedSequences:
    """The sequences of a mixture's parts, or a subset of each part's, read as batches."""

    def __init__(
        self,
        streams: list[TokenStream],
        *,
        context_length: int,
        predictions: list[TokenStream] | None = None,
        end_token_id: int | None = None,
    ):
        """streams: one per part.
        predictions: streams as long as `streams`, whose token n is a guess of token n + 1.
        end_token_id: ends each document, and documents are masked from each other; None: they are not.
        """
        _check_lengths(streams, predictions)
        self.streams, self.predictions, self.end_token_id = streams, predictions, end_token_id
        self._tokens = [Sequences(stream, context_length=context_length) for stream in streams]
        self._predicted = [Sequences(stream, context_length=context_length) for stream in predictions or []]
        self.parts = [Subset(sequences.num_sequences) for sequences in self._tokens]

    def subset(self, parts: list[Subset]) -> "PackedSequences":
        """Return the same data with fewer sequences of each part."""
        chosen = copy.copy(self)
        chosen.parts = parts
        return chosen

    @property
    def num_sequences(self) -> int:
        return sum(part.num_sequences for part in self.parts)

    def batch(self, addresses: np.ndarray, *, weights: np.ndarray | None = None) -> Batch:
        """Read the sequences at addresses [B, 2]. weights: one per sequence, 1 by default."""
        tokens = read_sequences(self._tokens, addresses)
        inputs = torch.from_numpy(tokens[:, :-1]).contiguous()
        targets = torch.from_numpy(tokens[:, 1:]).contiguous()
        weights = np.ones(len(addresses)) if weights is None else weights
        predicted = position_ids = None
        if self._predicted:
            predicted = torch.from_numpy(read_sequences(self._predicted, addresses, num_following=0))
        if self.end_token_id is not None:
            position_ids = torch.from_numpy(document_positions(tokens[:, :-1], end_token_id=self.end_token_id))
        return Batch(inputs, targets, torch.from_numpy(weights.astype(np.float32)), predicted, position_ids)

    def first(self, num_sequences: int) -> np.ndarray:
        """Return num_sequences addresses: the first sequences of each part, in proportion to its size."""
        starts = np.cumsum([0, *(part.num_sequences for part in self.parts)])
        counts = np.diff(starts * num_sequences // self.num_sequences).tolist()
        return np.concatenate([self._first_of_part(part, count) for part, count in enumerate(counts)])

    def padding(self, num_sequences: int) -> np.ndarray:
        """Return the address of the very first sequence, num_sequences times."""
        part = next(number for number, part in enumerate(self.parts) if part.num_sequences > 0)
        return np.tile(self._first_of_part(part, 1), (num_sequences, 1))

    def _first_of_part(self, part: int, count: int) -> np.ndarray:
        return make_addresses(part, self.parts[part].sequences(np.arange(count)))


def _check_lengths(streams: list[TokenStream], predictions: list[TokenStream] | None) -> None:
    for stream, predicted in zip(streams, predictions or streams, strict=True):
        if predicted.num_tokens != stream.num_tokens:
            raise ValueError(
                f"{predicted.folder} predicts {predicted.num_tokens} tokens but {stream.folder} holds "
                f"{stream.num_tokens}; make the predictions again"
            )


def micro_batch_addresses(
    order: MixtureOrder, number: int, *, micro_batch_size: int, rank: int, world_size: int
) -> np.ndarray:
    """Return the addresses of this rank's micro-batch `number` of the run, from 0: int64 [micro_batch_size, 2].

    Micro-batches go to the ranks in rotation. With G sequences in the global batch, step s takes the positions
    [s * G, (s + 1) * G) of the order on any number of ranks, so a run may resume on another number.
    """
    return order.addresses((number * world_size + rank) * micro_batch_size, micro_batch_size)


def validation_batches(
    sequences: PackedSequences, *, num_sequences: int, micro_batch_size: int, rank: int, world_size: int
) -> Iterator[Batch]:
    """Yield this rank's batches of the first num_sequences sequences; each sequence counts on exactly one rank.

    Batches are padded so that every rank yields the same number of them.
    """
    num_passes = -(-num_sequences // (micro_batch_size * world_size))
    size = num_passes * world_size * micro_batch_size
    addresses = np.concatenate([sequences.first(num_sequences), sequences.padding(size - num_sequences)])
    addresses = addresses.reshape(num_passes, world_size, micro_batch_size, 2)[:, rank]
    weights = (np.arange(size) < num_sequences).reshape(num_passes, world_size, micro_batch_size)[:, rank]
    for addresses_B2, weights_B in zip(addresses, weights, strict=True):
        yield sequences.batch(addresses_B2, weights=weights_B)
