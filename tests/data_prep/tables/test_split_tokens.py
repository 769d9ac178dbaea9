"""Heavy tokens are cut into parts that previous tokens and positions tell apart, and the parts balance."""

import hashlib

import numpy as np
import pytest

from data_prep.shards.token_stream import TokenStream
from data_prep.tables.split_tokens import PERIOD, count_bigrams, heavy_tokens, largest_part, split_heavy_tokens
from tests.data_prep.shards.test_token_stream import STREAM, write_folder
from tests.data_prep.tables.test_assignments import zipf


def test_heavy_tokens_exceed_the_mean_load():
    counts = np.array([5, 1, 4, 2])  # 12 tokens: the mean of 3 experts is 4
    assert heavy_tokens(counts, 3).tolist() == [0]
    assert heavy_tokens(counts, 3, split_threshold=0.5).tolist() == [0, 2]
    with pytest.raises(ValueError, match="--split_threshold 0 must be above 0"):
        heavy_tokens(counts, 3, split_threshold=0)


@pytest.mark.parametrize("context_length", [0, 5])
def test_bigrams_equal_a_plain_count(tmp_path, monkeypatch, context_length):
    monkeypatch.setattr("data_prep.shards.contexts.CHUNK_TOKENS", 5)
    stream = TokenStream(write_folder(tmp_path))
    counts = count_bigrams(stream, np.array([9, 4]), vocab_size=10, context_length=context_length)
    expected = np.zeros((2, 11), dtype=np.int64)
    for i, token in enumerate(STREAM):
        if token in (9, 4):
            first = i == 0 or (context_length and i % context_length == 0)
            expected[[9, 4].index(token), 10 if first else STREAM[i - 1]] += 1
    assert counts.tolist() == expected.tolist()


def test_a_split_a_person_can_check():
    # token 1 occurs 8 times: 4 after token 0, which positions share, 2 after token 1 and 2 after none
    split_table, position_table, load_E = split_heavy_tokens(
        np.array([4, 8]), np.array([[4, 2, 2]]), num_experts=4, most=2
    )
    assert split_table.tolist() == [[-1, 0, 1]]
    assert position_table[:, :4].tolist() == [[2, 3, 2, 3]] and position_table.shape == (1, PERIOD)
    assert load_E.tolist() == [2, 2, 2, 2]


def test_previous_tokens_that_were_never_counted_are_spread():
    counts = np.array([50, 40, 30, 20, 10, 100])
    bigrams = np.array([[0, 0, 0, 0, 0, 50, 50]])
    split_table, _, load_E = split_heavy_tokens(counts, bigrams, num_experts=2, most=50)
    assert split_table.tolist() == [[0, 1, 0, 1, 0, 0, 1]] and load_E.tolist() == [50, 50]


@pytest.mark.parametrize("ep_size", [1, 4])
@pytest.mark.parametrize("num_experts", [16, 64])
def test_parts_hold_all_occurrences_in_small_pieces(num_experts, ep_size):
    counts = zipf(2000, largest=100_000)
    heavy = heavy_tokens(counts, num_experts)
    bigrams = np.stack([np.append(counts, 0) * count // counts.sum() for count in counts[heavy]])
    most = largest_part(counts, num_experts)
    split_table, position_table, load_E = split_heavy_tokens(counts, bigrams, num_experts, most=most, ep_size=ep_size)
    assert load_E.sum() == bigrams.sum()
    assert split_table.min() >= -len(position_table) and split_table.max() < num_experts
    assert (split_table < 0).tolist() == (bigrams > most).tolist()
    for row, bigrams_P in zip(split_table, bigrams, strict=True):
        of_token = np.bincount(row[row >= 0], weights=bigrams_P[row >= 0])
        assert of_token.max() <= most * 2  # an expert holds hardly two parts of one token


def test_same_counts_give_the_same_bytes_everywhere():
    counts = zipf(500, largest=10_000)
    bigrams = np.stack([np.append(counts, 7) * 3 // 10, np.append(counts, 7) // 10])
    split_table, position_table, _ = split_heavy_tokens(counts, bigrams, 16, most=700, ep_size=2)
    found = [hashlib.sha256(t.astype("<i4").tobytes()).hexdigest()[:16] for t in (split_table, position_table)]
    assert found == GOLDEN


GOLDEN = ["05f27f69b9927157", "b8860d1c8ad35f92"]
