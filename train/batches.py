"""Batches: sequences cut from a stream of tokens, in a shuffled order that any number of ranks shares."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from data_prep.token_shards import TokenStream
from models.dispatch import Plan
from train.sample_order import SampleOrder


@dataclass(frozen=True)
class Batch:
    """One micro-batch: input_ids [B, S], and targets [B, S], the token that follows each input.

    weights: [B], 1 for a sequence that counts and 0 for one that only fills the batch up.
    predicted: a baseline's guess of each target [B, S], where the data come with predictions.
    plans: the plans of all sparse layers, where they were made ahead (train/route_ahead.py).
    """

    input_ids: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    predicted: torch.Tensor | None = None
    plans: dict[int, list[Plan]] | None = None

    def to(self, device: torch.device) -> "Batch":
        moved = [None if t is None else t.to(device, non_blocking=True) for t in self.tensors]
        return Batch(*moved, plans=self.plans)

    @property
    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        return self.input_ids, self.targets, self.weights, self.predicted

    @property
    def known(self) -> dict[str, torch.Tensor]:
        """What hashes of the future may look at, as HashGPTModel.plan takes it."""
        known = {"next_ids": self.targets}
        return known if self.predicted is None else known | {"predicted_ids": self.predicted}


class PackedSequences:
    """Sequence i of a stream is its tokens [i * S, i * S + S], so that each token is a target once.

    predictions: a stream of the same length, whose token n is a guess of token n + 1 of `stream`.
    """

    def __init__(self, stream: TokenStream, *, context_length: int, predictions: TokenStream | None = None):
        if predictions is not None and predictions.num_tokens != stream.num_tokens:
            raise ValueError(
                f"{predictions.folder} predicts {predictions.num_tokens} tokens but {stream.folder} holds "
                f"{stream.num_tokens}; make the predictions again"
            )
        self.stream = stream
        self.predictions = predictions
        self.context_length = context_length
        self.num_sequences = max(stream.num_tokens - 1, 0) // context_length

    def batch(self, indices: np.ndarray) -> Batch:
        """Sequences by index; -1 stands for one that fills the batch up."""
        tokens = self._read(self.stream, indices, self.context_length + 1)
        weights = torch.from_numpy((np.asarray(indices) >= 0).astype(np.float32))
        predicted = None if self.predictions is None else self._read(self.predictions, indices, self.context_length)
        return Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), weights, predicted)

    def _read(self, stream: TokenStream, indices: np.ndarray, length: int) -> torch.Tensor:
        starts = [max(int(index), 0) * self.context_length for index in indices]
        return torch.from_numpy(np.stack([stream.read(start, length) for start in starts]))


def training_indices(
    order: SampleOrder, *, step: int, global_batch_size: int, micro_batch_size: int, rank: int, world_size: int
) -> np.ndarray:
    """Sequence indices of this rank in the step (0-based), [micro-batches, micro_batch_size].

    Step s takes positions [s * G, (s + 1) * G) of the order whatever the number of ranks, so a run may go on with
    another number of them.
    """
    samples = order.samples(step * global_batch_size, global_batch_size)
    return samples.reshape(-1, world_size, micro_batch_size)[:, rank]


def validation_batches(
    sequences: PackedSequences, *, num_sequences: int, micro_batch_size: int, rank: int, world_size: int
) -> Iterator[Batch]:
    """The first num_sequences in order, each on exactly one rank; every rank yields equally many batches."""
    per_pass = micro_batch_size * world_size
    num_passes = -(-num_sequences // per_pass)
    indices = np.full(num_passes * per_pass, -1)
    indices[:num_sequences] = np.arange(num_sequences)
    for row in indices.reshape(num_passes, world_size, micro_batch_size)[:, rank]:
        yield sequences.batch(row)
