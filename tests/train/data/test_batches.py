"""Each token is a target once, and any number of ranks reads the same sequences in the same step."""

from collections import Counter

import numpy as np
import pytest
import torch

from data_prep.shards.held_out_size import GROUP_SEQUENCES
from data_prep.shards.sequences import make_addresses
from data_prep.shards.token_stream import TokenStream
from tests.damage import flip_bit
from tests.data_prep.shards.test_token_stream import write_folder
from train.data.batches import Batch, PackedSequences, micro_batch_addresses, validation_batches
from train.data.mixture_order import MixtureOrder
from train.data.validation_split import Subset


class CountingStream:
    """A stream whose token at position i is first + i, so a batch shows where it was read."""

    def __init__(self, num_tokens: int, *, first: int = 0, folder: str = "shards"):
        self.num_tokens, self.first, self.folder = num_tokens, first, folder

    def read_into(self, out: np.ndarray, start: int) -> None:
        assert start + len(out) <= self.num_tokens
        out[:] = np.arange(start, start + len(out)) + self.first


def sequences(num_tokens: int, *, length: int = 3) -> PackedSequences:
    return PackedSequences([CountingStream(num_tokens)], context_length=length)


def read(packed: PackedSequences, *of_part_0: int) -> Batch:
    return packed.batch(make_addresses(0, np.array(of_part_0)))


def test_a_target_is_the_token_that_follows():
    batch = read(sequences(10), 0, 2)
    assert batch.input_ids.tolist() == [[0, 1, 2], [6, 7, 8]]
    assert batch.targets.tolist() == [[1, 2, 3], [7, 8, 9]]
    assert batch.input_ids.dtype == batch.targets.dtype == torch.int64
    assert batch.input_ids.is_contiguous() and batch.targets.is_contiguous()


def test_predictions_are_read_at_the_places_of_the_tokens():
    predictions = CountingStream(10, first=100)
    packed = PackedSequences([CountingStream(10)], context_length=3, predictions=[predictions])
    assert read(packed, 0, 2).predicted.tolist() == [[100, 101, 102], [106, 107, 108]]
    assert read(sequences(10), 0).predicted is None


def test_predictions_of_other_data_are_refused_with_both_lengths():
    predictions = CountingStream(9, folder="shards/predictions")
    with pytest.raises(ValueError, match="shards/predictions predicts 9 tokens but shards holds 10"):
        PackedSequences([CountingStream(10)], context_length=3, predictions=[predictions])


def test_documents_that_are_masked_from_each_other_have_positions_of_their_own():
    packed = PackedSequences([CountingStream(10)], context_length=3, end_token_id=7)
    batch = read(packed, 0, 2)  # 0 1 2, 6 7 8
    assert batch.position_ids.tolist() == [[0, 1, 2], [0, 1, 0]]
    assert batch.known.keys() == {"next_ids", "position_ids"}
    assert read(sequences(10), 0).position_ids is None


def test_a_batch_may_read_several_parts():
    streams = [CountingStream(10), CountingStream(3), CountingStream(7, first=50)]  # 3, 0 and 2 sequences
    packed = PackedSequences(streams, context_length=3)
    assert [part.num_sequences for part in packed.parts] == [3, 0, 2] and packed.num_sequences == 5
    batch = packed.batch(np.array([[2, 1], [0, 2], [2, 0]]))
    assert batch.input_ids.tolist() == [[53, 54, 55], [6, 7, 8], [50, 51, 52]]


ALL = [[0, 0], [0, 1], [2, 0], [2, 1], [2, 2]]


@pytest.mark.parametrize(("num_sequences", "expected"), [(5, ALL), (3, [ALL[0], *ALL[2:4]]), (1, [ALL[2]])])
def test_fewer_sequences_are_the_first_ones_of_each_part(num_sequences, expected):
    streams = [CountingStream(7), CountingStream(3), CountingStream(10)]  # 2, 0 and 3 sequences
    assert PackedSequences(streams, context_length=3).first(num_sequences).tolist() == expected


def test_the_addresses_of_a_subset_are_those_of_the_whole():
    whole = PackedSequences([CountingStream(3), CountingStream(301)], context_length=3)  # 0 and 100 sequences
    chosen = whole.subset([Subset(0), Subset(100, np.array([1]), is_held_out=True)])
    assert chosen.num_sequences == 100 - GROUP_SEQUENCES
    assert chosen.first(2).tolist() == [[1, 64], [1, 65]] and chosen.padding(2).tolist() == [[1, 64], [1, 64]]
    assert chosen.batch(chosen.first(1)).input_ids.tolist() == [[192, 193, 194]]
    assert whole.first(2).tolist() == [[1, 0], [1, 1]]  # unchanged


def test_hashes_may_read_targets_and_any_predictions():
    batch = Batch(torch.tensor([[1, 2]]), torch.tensor([[2, 3]]), torch.ones(1), torch.tensor([[2, 9]]))
    assert {name: ids.tolist() for name, ids in batch.known.items()} == {
        "next_ids": [[2, 3]], "predicted_ids": [[2, 9]],
    }  # fmt: skip
    assert read(sequences(10), 0).known.keys() == {"next_ids"}


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
    targets = packed.batch(packed.first(packed.num_sequences)).targets
    assert sorted(targets.flatten().tolist()) == list(range(1, 13))


def test_a_real_token_stream_is_read_across_the_whole_corpus(tiny_data):
    stream = TokenStream(tiny_data.train)
    packed = PackedSequences([stream], context_length=16)
    last = packed.num_sequences - 1
    batch = read(packed, last)
    assert batch.targets[0].tolist() == stream.read(last * 16 + 1, 16).tolist()
    assert stream.num_tokens - (last * 16 + 17) < 16  # less than one sequence is left over


@pytest.mark.parametrize("damaged", ["tokens", "predictions"])
def test_a_flipped_bit_is_an_error_that_names_its_file(tmp_path, damaged):
    for name in ("tokens", "predictions"):
        write_folder(tmp_path / name, shards=[[[1, 2, 3], [4, 5, 6, 7, 8, 9]]])
    path = tmp_path / damaged / "shard0.bin"
    flip_bit(path, 9)  # token 4
    tokens, predictions = TokenStream(tmp_path / "tokens"), TokenStream(tmp_path / "predictions")
    packed = PackedSequences([tokens], context_length=2, predictions=[predictions])
    assert read(packed, 0).targets.tolist() == [[2, 3]]
    with pytest.raises(ValueError, match=f"{path} is damaged: bytes 8..11 have digest"):
        read(packed, 0, 2)


SPLITS = [(1, 8), (1, 2), (2, 4), (2, 1), (4, 2), (4, 1), (8, 1)]  # world size, micro-batch size


def make_order() -> MixtureOrder:
    """An epoch of 13 sequences: 5 of part 0 and 8 of part 1."""
    return MixtureOrder([Subset(5), Subset(8)], [1, 1], seed=4, part_seeds=[0, 0])


def addresses_of_ranks(step: int, world_size: int, micro_batch_size: int) -> list[np.ndarray]:
    """Addresses of a step of 8 sequences, [micro-batches, micro_batch_size, 2] per rank."""
    order, per_step = make_order(), 8 // world_size // micro_batch_size
    options = {"micro_batch_size": micro_batch_size, "world_size": world_size}
    numbers = range(step * per_step, (step + 1) * per_step)
    return [
        np.stack([micro_batch_addresses(order, number, rank=rank, **options) for number in numbers])
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("world_size, micro_batch_size", SPLITS)
@pytest.mark.parametrize("step", [0, 1, 5])  # step 1 reaches into the second epoch
def test_any_number_of_ranks_divides_the_same_global_batch(step, world_size, micro_batch_size):
    ranks = addresses_of_ranks(step, world_size, micro_batch_size)
    assert all(rank.shape == (8 // world_size // micro_batch_size, micro_batch_size, 2) for rank in ranks)
    expected = make_order().addresses(step * 8, 8)
    assert sorted(np.concatenate(ranks).reshape(-1, 2).tolist()) == sorted(expected.tolist())


def test_steps_follow_each_other_without_gap_or_repetition():
    steps = [addresses_of_ranks(step, 2, 2) for step in range(13)]  # 13 steps * 8 = 8 epochs of 13
    seen = Counter(map(tuple, np.concatenate([rank.reshape(-1, 2) for ranks in steps for rank in ranks]).tolist()))
    assert len(seen) == 13 and set(seen.values()) == {8}


def batches_of_ranks(num_sequences: int, world_size: int, micro_batch_size: int = 2) -> list[list]:
    packed = sequences(31)  # 10 sequences of 3
    options = {"num_sequences": num_sequences, "micro_batch_size": micro_batch_size, "world_size": world_size}
    return [list(validation_batches(packed, rank=rank, **options)) for rank in range(world_size)]


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("num_sequences", [1, 4, 7, 10])
def test_validation_counts_each_sequence_once_and_ranks_have_equal_numbers_of_batches(num_sequences, world_size):
    ranks = batches_of_ranks(num_sequences, world_size)
    assert len({len(batches) for batches in ranks}) == 1
    batches = [batch for rank in ranks for batch in rank]
    assert {tuple(batch.input_ids.shape) for batch in batches} == {(2, 3)}
    first_tokens = torch.cat([batch.input_ids[:, 0][batch.weights == 1] for batch in batches])
    assert sorted(first_tokens.tolist()) == [3 * i for i in range(num_sequences)]


def test_a_sequence_that_pads_a_batch_is_the_first_one_with_weight_0():
    batches = [batch for rank in batches_of_ranks(3, world_size=4) for batch in rank]  # 8 places for 3 sequences
    assert [batch.weights.tolist() for batch in batches] == [[1, 1], [1, 0], [0, 0], [0, 0]]
    assert [batch.input_ids[:, 0].tolist() for batch in batches] == [[0, 3], [6, 0], [0, 0], [0, 0]]
