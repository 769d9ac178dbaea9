"""Loads are counted in integers, and numbers that mean nothing are refused."""

import math

import numpy as np
import pytest

from data_prep.tables.assignments import balanced_table
from data_prep.tables.expert_load import load_summary, max_over_mean, rank_load, worst_max_over_mean


def test_load_summary_counts_in_integers():
    summary = load_summary(np.array([0, 1, 1, 2]), np.array([2**60, 1, 2, 3]), 4, 2)
    assert summary.load_E.tolist() == [2**60, 3, 3, 0]
    assert summary.lower_bound == summary.max_over_mean
    assert summary.rank_max_over_mean == pytest.approx(2.0)


def test_imbalance_is_max_over_mean_of_experts_and_of_ranks():
    load_LE = np.array([[6, 2, 1, 3], [3, 3, 3, 3]])
    assert max_over_mean(load_LE[0]) == worst_max_over_mean(load_LE) == 2.0  # 6 / 3
    assert rank_load(load_LE, 2).tolist() == [[8, 4], [6, 6]]
    assert worst_max_over_mean(rank_load(load_LE, 2)) == pytest.approx(8 / 6)
    assert math.isnan(max_over_mean(np.zeros(4, dtype=np.int64)))


def test_ep_size_must_divide_the_experts():
    with pytest.raises(
        ValueError, match="6 experts cannot be split evenly over ep_size=4 ranks; choose an ep_size that"
    ):
        balanced_table(np.ones(8, dtype=np.int64), 6, ep_size=4)


@pytest.mark.parametrize(("num_experts", "ep_size"), [(0, 1), (4, 0)])
def test_fewer_than_one_expert_or_rank_is_refused(num_experts, ep_size):
    with pytest.raises(ValueError, match=f"num_experts={num_experts} and ep_size={ep_size} must both be at least 1"):
        balanced_table(np.ones(8, dtype=np.int64), num_experts, ep_size=ep_size)


@pytest.mark.parametrize("counts", [np.zeros(3, dtype=np.int64), np.array([1, -1]), np.array([], dtype=np.int64)])
def test_counts_of_nothing_are_refused(counts):
    with pytest.raises(ValueError, match="at least one token counted"):
        balanced_table(counts, 2)


@pytest.mark.parametrize("counts", [np.ones(3), np.ones((3, 1), dtype=np.int64)])
def test_counts_that_are_not_a_vector_of_integers_are_refused(counts):
    with pytest.raises(ValueError, match="a vector of integers, not"):
        balanced_table(counts, 2)
