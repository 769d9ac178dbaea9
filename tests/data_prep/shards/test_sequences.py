"""Sequences of several streams are read by index, each with the token after it."""

import numpy as np
import pytest

from data_prep.shards.sequences import Sequences
from data_prep.shards.token_stream import TokenStream
from tests.damage import flip_bit
from tests.data_prep.shards.test_token_stream import SHARDS, STREAM, write_folder


def make_sequences(tmp_path) -> Sequences:
    """Of 12 and 5 tokens: 3 sequences of 3, then 1."""
    folders = [write_folder(tmp_path / "one"), write_folder(tmp_path / "two", shards=SHARDS[:1])]
    return Sequences([TokenStream(folder) for folder in folders], context_length=3)


def test_sequences_come_with_the_token_after_them_across_shards_and_streams(tmp_path):
    sequences = make_sequences(tmp_path)
    assert sequences.sizes == [3, 1] and sequences.num_sequences == 4
    found = sequences.read(np.array([3, 1, 2]))
    assert found.tolist() == [STREAM[0:4], STREAM[3:7], STREAM[6:10]] and found.dtype == np.int64
    assert sequences.read(np.array([2]), num_following=0).tolist() == [STREAM[6:9]]


def test_damage_is_noticed_where_it_is_read(tmp_path):
    sequences = make_sequences(tmp_path)
    flip_bit(tmp_path / "two" / "shard0.bin", 0)
    assert sequences.read(np.array([0, 1, 2])).shape == (3, 4)
    with pytest.raises(ValueError, match="two/shard0.bin is damaged"):
        sequences.read(np.array([0, 3]))
