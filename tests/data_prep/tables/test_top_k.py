"""Each key gets different experts, balanced over all pairs."""

import hashlib

import numpy as np
import pytest

from data_prep.tables.expert_load import load_summary
from data_prep.tables.top_k import balanced_top_k_table, random_top_k_table, round_robin_top_k_table
from tests.data_prep.tables.test_assignments import zipf

COUNTS = zipf(5000, largest=100_000)


def test_a_table_a_person_can_check():
    # 5 -> experts 0 and 1, 4 -> 2 and 0 (both others are fuller or equal: 0 by its lower id), 3 -> 1 and 2
    assert balanced_top_k_table(np.array([5, 4, 3]), 3, 2).tolist() == [[0, 1], [2, 0], [2, 1]]


@pytest.mark.parametrize("variant", [0, 1])
@pytest.mark.parametrize(
    ("num_experts", "top_k", "ep_size"), [(16, 2, 1), (64, 6, 1), (64, 6, 8), (8, 6, 4), (4, 4, 2)]
)
def test_balanced_meets_the_lower_bound_with_different_experts(num_experts, top_k, ep_size, variant):
    table = balanced_top_k_table(COUNTS, num_experts, top_k, variant=variant, ep_size=ep_size)
    assert all(len(set(row)) == top_k for row in table.tolist())
    summary = load_summary(table, COUNTS, num_experts, ep_size)
    assert summary.load_E.sum() == top_k * COUNTS.sum()
    assert summary.lower_bound <= summary.max_over_mean <= summary.lower_bound * 1.001
    assert summary.rank_max_over_mean <= summary.lower_bound * 1.001


def test_one_choice_is_balanced_like_the_single_table():
    summaries = [
        load_summary(balanced_top_k_table(COUNTS, 16, 1, ep_size=ep_size), COUNTS, 16, 4) for ep_size in (1, 4)
    ]
    assert max(summary.max_over_mean for summary in summaries) <= summaries[0].lower_bound * 1.001


def test_unseen_keys_are_dealt_out_evenly():
    counts = np.concatenate([COUNTS, np.zeros(640, dtype=np.int64)])
    unseen = balanced_top_k_table(counts, 64, 3)[5000:]
    assert (np.bincount(unseen.ravel(), minlength=64) == 30).all()
    assert all(len(set(row)) == 3 for row in unseen.tolist())


def test_random_choices_are_different_and_use_every_expert_about_equally_often():
    table = random_top_k_table(32_000, 8, 3, seed=1)
    assert all(len(set(row)) == 3 for row in table.tolist())
    for choice in table.T:
        num_keys = np.bincount(choice, minlength=8)
        assert len(num_keys) == 8 and 3750 < num_keys.min() and num_keys.max() < 4250
    assert (random_top_k_table(1000, 8, 8, seed=1).sum(axis=1) == 28).all()


def test_round_robin_takes_neighbours():
    assert round_robin_top_k_table(4, 3, 2).tolist() == [[0, 1], [1, 2], [2, 0], [0, 1]]


def test_more_choices_than_experts_are_refused():
    with pytest.raises(ValueError, match="top_k=5 different experts cannot be chosen among 4; lower top_k"):
        balanced_top_k_table(COUNTS, 4, 5)


GOLDEN = {
    "balanced": "06e6a0219ee97671",
    "variant": "f216d947c6c47328",
    "ranks": "142aa6549d071410",
    "random": "03931f7091b4ccfe",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_same_seed_gives_the_same_bytes_everywhere(name):
    counts = 10_000 // np.arange(1, 1001) * (np.arange(1000) % 7 > 0)
    table = {
        "balanced": lambda: balanced_top_k_table(counts, 8, 3),
        "variant": lambda: balanced_top_k_table(counts, 8, 3, seed=1, variant=2),
        "ranks": lambda: balanced_top_k_table(counts, 8, 3, ep_size=4),
        "random": lambda: random_top_k_table(1000, 8, 3, seed=1),
    }[name]()
    assert table.dtype == np.int32
    assert hashlib.sha256(table.astype("<i4").tobytes()).hexdigest()[:16] == GOLDEN[name]
