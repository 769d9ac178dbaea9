"""Sequences of several streams are read by their addresses, each with the token after it."""

import numpy as np
import pytest

from data_prep.shards.sequences import Sequences, make_addresses, read_sequences
from data_prep.shards.token_stream import TokenStream
from tests.damage import flip_bit
from tests.data_prep.shards.test_token_stream import SHARDS, STREAM, write_folder


def make_parts(tmp_path) -> list[Sequences]:
    """12 and 5 tokens: 3 sequences of 3 tokens, and 1."""
    folders = [write_folder(tmp_path / "one"), write_folder(tmp_path / "two", shards=SHARDS[:1])]
    return [Sequences(TokenStream(folder), context_length=3) for folder in folders]


def test_addresses_are_part_and_sequence():
    assert make_addresses(2, np.array([5, 0])).tolist() == [[2, 5], [2, 0]]


def test_sequences_come_with_the_token_after_them_across_shards_and_parts(tmp_path):
    parts = make_parts(tmp_path)
    assert [part.num_sequences for part in parts] == [3, 1]
    found = read_sequences(parts, np.array([[1, 0], [0, 1], [0, 2]]))
    assert found.tolist() == [STREAM[0:4], STREAM[3:7], STREAM[6:10]] and found.dtype == np.int64
    assert read_sequences(parts, np.array([[0, 2]]), num_following=0).tolist() == [STREAM[6:9]]


def test_one_part_is_read_by_its_sequences_alone(tmp_path):
    part = make_parts(tmp_path)[0]
    assert part.read(np.array([2, 0])).tolist() == [STREAM[6:10], STREAM[0:4]]
    assert part.read(np.array([1]), num_following=2).tolist() == [STREAM[3:8]]


def test_a_damaged_block_is_an_error_only_if_it_is_read(tmp_path):
    parts = make_parts(tmp_path)
    flip_bit(tmp_path / "two" / "shard0.bin", 0)
    assert read_sequences(parts, np.array([[0, 0], [0, 1], [0, 2]])).shape == (3, 4)
    with pytest.raises(ValueError, match="two/shard0.bin is damaged"):
        read_sequences(parts, np.array([[0, 0], [1, 0]]))
