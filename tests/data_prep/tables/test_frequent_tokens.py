"""Frequent tokens are cut into parts that previous tokens and positions tell apart, and the parts balance."""

import hashlib

import numpy as np
import pytest

from data_prep.tables.frequent_tokens import (
    PERIOD,
    FrequentTokenSplit,
    frequent_tokens,
    group_code,
    max_part_tokens,
    place_parts,
)
from tests.data_prep.tables.test_greedy import zipf


def place(counts, bigrams, num_experts, **options):
    """The split of the first tokens, as many as `bigrams` has rows, and its load."""
    return place_parts(counts, np.arange(len(bigrams)), bigrams, num_experts, **options)


def test_frequent_tokens_exceed_the_mean_load():
    counts = np.array([5, 1, 4, 2])  # 12 tokens: the mean of 3 experts is 4
    assert frequent_tokens(counts, 3).tolist() == [0]
    assert frequent_tokens(counts, 3, split_threshold=0.5).tolist() == [0, 2]
    with pytest.raises(ValueError, match="--split_threshold 0 must be above 0"):
        frequent_tokens(counts, 3, split_threshold=0)


def test_a_threshold_that_leaves_no_token_whole_is_refused():
    message = "--split_threshold 1e-09 with 3 experts splits all 4 tokens that occur, and leaves none to balance"
    with pytest.raises(ValueError, match=message):
        frequent_tokens(np.array([5, 0, 1, 4, 2]), 3, split_threshold=1e-9)


def test_a_split_that_a_person_can_check():
    # token 1 occurs 8 times: 4 after token 0, which positions share, 2 after token 1 and 2 after none
    split, load_E = place_parts(np.array([4, 8]), np.array([1]), np.array([[4, 2, 2]]), num_experts=4, max_tokens=2)
    assert split.split_index.tolist() == [-1, 0]
    assert split.split_table.tolist() == [[-1, 0, 1]]
    assert split.position_table[:, :4].tolist() == [[2, 3, 2, 3]] and split.position_table.shape == (1, PERIOD)
    assert load_E.tolist() == [2, 2, 2, 2]
    assert split.start_experts.tolist() == [1]


def test_an_entry_is_an_expert_or_the_code_of_a_group():
    split = FrequentTokenSplit(
        split_index=np.array([0, 1], dtype=np.int32),
        split_table=np.array([[5, -1, -2], [-2, 4, 3]], dtype=np.int32),
        position_table=np.array([[7, 9], [6, 8]], dtype=np.int32),
    )
    row, previous = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 1, 0, 1])
    assert split.experts(row, previous, np.array([3, 2, 5, 1, 1])).tolist() == [5, 7, 9, 8, 4]
    assert split.start_experts.tolist() == [6, 3]
    assert group_code(np.array([0, 1])).tolist() == [-1, -2] and group_code(group_code(7)) == 7


def test_previous_tokens_that_were_never_counted_are_spread():
    counts = np.array([50, 40, 30, 20, 10, 100])
    bigrams = np.array([[0, 0, 0, 0, 0, 50, 50]])
    split, load_E = place(counts, bigrams, 2, max_tokens=50)
    assert split.split_table.tolist() == [[0, 1, 0, 1, 0, 0, 1]] and load_E.tolist() == [50, 50]


@pytest.mark.parametrize("ep_size", [1, 4])
@pytest.mark.parametrize("num_experts", [16, 64])
def test_parts_hold_all_occurrences_in_small_pieces(num_experts, ep_size):
    counts = zipf(2000, largest=100_000)
    tokens = frequent_tokens(counts, num_experts)
    bigrams = np.stack([np.append(counts, 0) * count // counts.sum() for count in counts[tokens]])
    max_tokens = max_part_tokens(counts, num_experts)
    split, load_E = place(counts, bigrams, num_experts, max_tokens=max_tokens, ep_size=ep_size)
    split_table = split.split_table
    assert load_E.sum() == bigrams.sum()
    assert split_table.min() >= -len(split.position_table) and split_table.max() < num_experts
    assert (split_table < 0).tolist() == (bigrams > max_tokens).tolist()
    for row, bigrams_P in zip(split_table, bigrams, strict=True):
        of_token = np.bincount(row[row >= 0], weights=bigrams_P[row >= 0])
        assert of_token.max() <= max_tokens * 2  # an expert holds hardly two parts of one token


def test_same_counts_give_the_same_bytes_everywhere():
    counts = zipf(500, largest=10_000)
    bigrams = np.stack([np.append(counts, 7) * 3 // 10, np.append(counts, 7) // 10])
    split, _ = place(counts, bigrams, 16, max_tokens=700, ep_size=2)
    tensors = (split.split_table, split.position_table)
    assert [hashlib.sha256(tensor.astype("<i4").tobytes()).hexdigest()[:16] for tensor in tensors] == GOLDEN


GOLDEN = ["05f27f69b9927157", "b8860d1c8ad35f92"]
