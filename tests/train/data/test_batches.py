"""Each token is a target once, and any number of ranks sees the same sequences in the same step."""

import numpy as np
import pytest
import torch

from data_prep.shards.token_stream import TokenStream
from tests.damage import flip_bit
from tests.data_prep.shards.test_token_stream import write_folder
from train.data.batches import Batch, PackedSequences, micro_batch_indices, validation_batches
from train.data.sample_order import SampleOrder


class CountingStream:
    """A stream whose token at position i is first + i, so that a batch shows where it was read."""

    def __init__(self, num_tokens: int, *, first: int = 0, folder: str = "shards"):
        self.num_tokens, self.first, self.folder = num_tokens, first, folder

    def read_into(self, out: np.ndarray, start: int) -> None:
        assert start + len(out) <= self.num_tokens
        out[:] = np.arange(start, start + len(out)) + self.first


def sequences(num_tokens: int, *, length: int = 3) -> PackedSequences:
    return PackedSequences([CountingStream(num_tokens)], context_length=length)


def test_a_target_is_the_token_that_follows():
    batch = sequences(10).batch(np.array([0, 2]))
    assert batch.input_ids.tolist() == [[0, 1, 2], [6, 7, 8]]
    assert batch.targets.tolist() == [[1, 2, 3], [7, 8, 9]]
    assert batch.input_ids.dtype == batch.targets.dtype == torch.int64
    assert batch.input_ids.is_contiguous() and batch.targets.is_contiguous()


def test_predictions_are_read_at_the_places_of_the_tokens():
    predictions = CountingStream(10, first=100)
    packed = PackedSequences([CountingStream(10)], context_length=3, predictions=[predictions])
    assert packed.batch(np.array([0, 2])).predicted.tolist() == [[100, 101, 102], [106, 107, 108]]
    assert sequences(10).batch(np.array([0])).predicted is None


def test_predictions_of_other_data_are_refused_with_both_lengths():
    predictions = CountingStream(9, folder="shards/predictions")
    with pytest.raises(ValueError, match="shards/predictions predicts 9 tokens but shards holds 10"):
        PackedSequences([CountingStream(10)], context_length=3, predictions=[predictions])


def test_documents_that_do_not_see_each_other_have_positions_of_their_own():
    packed = PackedSequences([CountingStream(10)], context_length=3, end_token_id=7)
    batch = packed.batch(np.array([0, 2]))  # 0 1 2, 6 7 8
    assert batch.position_ids.tolist() == [[0, 1, 2], [0, 1, 0]]
    assert batch.known.keys() == {"next_ids", "position_ids"}
    assert sequences(10).batch(np.array([0])).position_ids is None


def test_the_sequences_of_streams_follow_one_another():
    streams = [CountingStream(10), CountingStream(3), CountingStream(7, first=50)]  # 3, 0 and 2 sequences
    packed = PackedSequences(streams, context_length=3)
    assert packed.sizes == [3, 0, 2] and packed.num_sequences == 5
    assert packed.batch(np.array([4, 2, 3])).input_ids.tolist() == [[53, 54, 55], [6, 7, 8], [50, 51, 52]]


@pytest.mark.parametrize(("num_sequences", "expected"), [(5, [0, 1, 2, 3, 4]), (3, [0, 2, 3]), (1, [2])])
def test_fewer_sequences_are_the_first_ones_of_each_stream(num_sequences, expected):
    streams = [CountingStream(7), CountingStream(3), CountingStream(10)]  # 2, 0 and 3 sequences
    assert PackedSequences(streams, context_length=3).first(num_sequences).tolist() == expected


def test_hashes_may_look_at_targets_and_at_predictions_where_there_are_some():
    batch = Batch(torch.tensor([[1, 2]]), torch.tensor([[2, 3]]), torch.ones(1), torch.tensor([[2, 9]]))
    assert {name: ids.tolist() for name, ids in batch.known.items()} == {
        "next_ids": [[2, 3]], "predicted_ids": [[2, 9]],
    }  # fmt: skip
    assert sequences(10).batch(np.array([0])).known.keys() == {"next_ids"}


@pytest.mark.parametrize("optional", [None, torch.tensor([[2, 9]])])
def test_a_batch_moves_to_a_device_as_a_whole(optional):
    batch = Batch(torch.tensor([[1, 2]]), torch.tensor([[2, 3]]), torch.ones(1), optional, optional)
    moved = batch.to(torch.device("meta"))
    tensors = [tensor for tensor in vars(moved).values() if tensor is not None]
    assert len(tensors) == (3 if optional is None else 5)
    assert all(tensor.is_meta for tensor in tensors)


@pytest.mark.parametrize("num_tokens, num_sequences", [(0, 0), (1, 0), (3, 0), (4, 1), (6, 1), (7, 2)])
def test_a_sequence_needs_one_token_more_than_its_length(num_tokens, num_sequences):
    assert sequences(num_tokens).num_sequences == num_sequences


def test_every_token_but_the_first_is_a_target_once():
    packed = sequences(13)
    targets = packed.batch(np.arange(packed.num_sequences)).targets
    assert sorted(targets.flatten().tolist()) == list(range(1, 13))


def test_a_real_token_stream_is_read_across_the_whole_corpus(tiny_data):
    stream = TokenStream(tiny_data.train)
    packed = PackedSequences([stream], context_length=16)
    last = packed.num_sequences - 1
    batch = packed.batch(np.array([last]))
    assert batch.targets[0].tolist() == stream.read(last * 16 + 1, 16).tolist()
    assert stream.num_tokens - (last * 16 + 17) < 16  # less than one sequence is left over


@pytest.mark.parametrize("damaged", ["tokens", "predictions"])
def test_a_flipped_bit_ends_the_batch_with_the_name_of_its_file(tmp_path, damaged):
    for name in ("tokens", "predictions"):
        write_folder(tmp_path / name, shards=[[[1, 2, 3], [4, 5, 6, 7, 8, 9]]])
    path = tmp_path / damaged / "shard0.bin"
    flip_bit(path, 9)  # token 4
    tokens, predictions = TokenStream(tmp_path / "tokens"), TokenStream(tmp_path / "predictions")
    packed = PackedSequences([tokens], context_length=2, predictions=[predictions])
    assert packed.batch(np.array([0])).targets.tolist() == [[2, 3]]
    with pytest.raises(ValueError, match=f"{path} is damaged: bytes 8..11 have digest"):
        packed.batch(np.array([0, 2]))


SPLITS = [(1, 8), (1, 2), (2, 4), (2, 1), (4, 2), (4, 1), (8, 1)]  # world size, micro-batch size


def indices_of_ranks(step: int, world_size: int, micro_batch_size: int) -> list[np.ndarray]:
    """Of a step of 8 sequences, [micro-batches, micro_batch_size] per rank."""
    order, per_step = SampleOrder(13, seed=4), 8 // world_size // micro_batch_size
    options = {"micro_batch_size": micro_batch_size, "world_size": world_size}
    numbers = range(step * per_step, (step + 1) * per_step)
    return [
        np.stack([micro_batch_indices(order, number, rank=rank, **options) for number in numbers])
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("world_size, micro_batch_size", SPLITS)
@pytest.mark.parametrize("step", [0, 1, 5])  # step 1 reaches into the second epoch
def test_ranks_share_out_the_global_batch_whatever_their_number(step, world_size, micro_batch_size):
    ranks = indices_of_ranks(step, world_size, micro_batch_size)
    assert all(rank.shape == (8 // world_size // micro_batch_size, micro_batch_size) for rank in ranks)
    expected = SampleOrder(13, seed=4).samples(step * 8, 8)
    assert sorted(np.concatenate(ranks, axis=None)) == sorted(expected)


def test_steps_follow_each_other_without_gap_or_repetition():
    steps = [indices_of_ranks(step, 2, 2) for step in range(13)]  # 13 steps * 8 = 8 epochs of 13
    seen = np.concatenate([rank.flatten() for ranks in steps for rank in ranks])
    assert np.bincount(seen).tolist() == [8] * 13


def batches_of_ranks(num_sequences: int, world_size: int, micro_batch_size: int = 2) -> list[list]:
    packed = sequences(31)  # 10 sequences of 3
    options = {"num_sequences": num_sequences, "micro_batch_size": micro_batch_size, "world_size": world_size}
    return [list(validation_batches(packed, rank=rank, **options)) for rank in range(world_size)]


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("num_sequences", [1, 4, 7, 10])
def test_validation_counts_each_sequence_once_and_ranks_have_equally_many_batches(num_sequences, world_size):
    ranks = batches_of_ranks(num_sequences, world_size)
    assert len({len(batches) for batches in ranks}) == 1
    batches = [batch for rank in ranks for batch in rank]
    assert {tuple(batch.input_ids.shape) for batch in batches} == {(2, 3)}
    first_tokens = torch.cat([batch.input_ids[:, 0][batch.weights == 1] for batch in batches])
    assert sorted(first_tokens.tolist()) == [3 * i for i in range(num_sequences)]


def test_a_sequence_that_fills_a_batch_up_has_weight_0():
    ranks = batches_of_ranks(3, world_size=4)  # 8 places for 3 sequences
    weights = [batch.weights.tolist() for rank in ranks for batch in rank]
    assert weights == [[1, 1], [1, 0], [0, 0], [0, 0]]
