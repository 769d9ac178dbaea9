"""Batches: sequences cut from a stream of tokens, in a shuffled order that any number of ranks shares."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from data_prep.token_shards import TokenStream
from train.sample_order import SampleOrder


@dataclass(frozen=True)
class Batch:
    """One micro-batch: input_ids [B, S], and targets [B, S], the token that follows each input.

    weights: [B], 1 for a sequence that counts and 0 for one that only fills the batch up.
    """

    input_ids: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


class PackedSequences:
    """Sequence i of a stream is its tokens [i * S, i * S + S], so that each token is a target once."""

    def __init__(self, stream: TokenStream, *, context_length: int):
        self.stream = stream
        self.context_length = context_length
        self.num_sequences = max(stream.num_tokens - 1, 0) // context_length

    def batch(self, indices: np.ndarray) -> Batch:
        """Sequences by index; -1 stands for one that fills the batch up."""
        length = self.context_length
        rows = [self.stream.read(max(int(index), 0) * length, length + 1) for index in indices]
        tokens = torch.from_numpy(np.stack(rows))
        weights = torch.from_numpy((np.asarray(indices) >= 0).astype(np.float32))
        return Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), weights)


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
