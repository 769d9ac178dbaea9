"""Tables are balanced as far as any can be, reproducible to the byte, and what the paper describes."""

import hashlib

import numpy as np
import pytest

from data_prep.tables.assignments import balanced_table, random_table, relabelled, round_robin_table
from data_prep.tables.expert_load import load_summary

NUM_KEYS = 50_257


def zipf(num_keys=NUM_KEYS, *, largest=1_000_000):
    """Counts of natural shape: the n-th key occurs largest / n times, so its tail is long; shuffled over the ids."""
    return (largest // np.arange(1, num_keys + 1))[np.random.Generator(np.random.PCG64(0)).permutation(num_keys)]


def paper_greedy(counts, num_experts):
    """The method in words: the most frequent token goes to the emptiest bucket."""
    table, load, num_keys = [None] * len(counts), [0] * num_experts, [0] * num_experts
    for key in sorted(range(len(counts)), key=lambda key: (-counts[key], key)):
        expert = min(range(num_experts), key=lambda e: (load[e], num_keys[e], e))
        table[key] = expert
        load[expert] += counts[key]
        num_keys[expert] += 1
    return table


def test_a_table_a_person_can_check():
    # 7 -> expert 0, 5 -> 1, 4 -> 2, 3 -> 2 (4 + 3), 2 -> 1 (5 + 2), 1 -> 0 by (load 7, one key)
    assert balanced_table(np.array([1, 2, 3, 4, 5, 7]), 3).tolist() == [0, 1, 2, 2, 1, 0]


def test_variant_0_is_the_papers_greedy():
    counts = zipf(300, largest=5000) + 1
    assert balanced_table(counts, 7, seed=9).tolist() == paper_greedy(counts.tolist(), 7)


@pytest.mark.parametrize("variant", [0, 1])
@pytest.mark.parametrize("num_experts", [16, 64, 256, 1024, 4096])
def test_balanced_meets_the_lower_bound_of_any_table(num_experts, variant):
    counts = zipf()
    summary = load_summary(balanced_table(counts, num_experts, variant=variant), counts, num_experts)
    assert summary.lower_bound <= summary.max_over_mean <= summary.lower_bound * 1.001


@pytest.mark.parametrize("variant", [0, 1])
@pytest.mark.parametrize(("num_experts", "ep_size"), [(16, 2), (16, 8), (64, 4), (64, 8), (256, 8), (16, 16)])
def test_ranks_are_balanced_without_a_fuller_expert(num_experts, ep_size, variant):
    counts = zipf()  # the heaviest key is 9% of all: alone on its expert from E=16 on, and a rank's whole share at R=11
    table = balanced_table(counts, num_experts, ep_size=ep_size, variant=variant)
    summary = load_summary(table, counts, num_experts, ep_size)
    assert summary.max_over_mean <= summary.lower_bound * 1.001
    assert summary.rank_max_over_mean <= max(1.0, counts.max() / counts.sum() * ep_size) * 1.001


def test_experts_in_index_order_would_leave_ranks_unbalanced():
    counts = zipf()
    assert load_summary(random_table(NUM_KEYS, 64, seed=0), counts, 64, 8).rank_max_over_mean > 1.1


def test_a_rank_with_a_heavy_key_fills_its_other_experts_less():
    counts = np.array([30] + [1] * 50)  # 80 tokens, 4 experts of 20, 2 ranks of 40
    summary = load_summary(balanced_table(counts, 4, ep_size=2), counts, 4, 2)
    assert summary.load_E.tolist() == [30, 10, 20, 20]
    assert (summary.max_over_mean, summary.rank_max_over_mean) == (1.5, 1.0)


@pytest.mark.parametrize("ep_size", [1, 2, 4])
def test_unseen_keys_are_dealt_out_evenly(ep_size):
    counts = zipf()
    counts[1000:16_000] = 0
    unseen = balanced_table(counts, 64, ep_size=ep_size)[1000:16_000]
    num_keys = np.bincount(unseen, minlength=64)
    assert num_keys.max() - num_keys.min() <= 1


def test_variants_differ_from_each_other_and_follow_the_seed():
    counts = zipf()
    tables = [
        balanced_table(counts, 64, seed=seed, variant=variant) for seed, variant in [(0, 0), (0, 1), (0, 2), (1, 1)]
    ]
    for i, table in enumerate(tables):
        for other in tables[:i]:
            assert (table != other).mean() > 0.9
    assert (balanced_table(counts, 64, seed=1, variant=1) == tables[3]).all()


def test_random_uses_every_expert_about_equally_often():
    num_keys = np.bincount(random_table(64_000, 64, seed=3), minlength=64)
    assert len(num_keys) == 64 and 850 < num_keys.min() and num_keys.max() < 1150


def test_random_tables_differ_by_seed_and_variant():
    tables = [random_table(1000, 64, seed=seed, variant=variant) for seed, variant in [(0, 0), (0, 1), (1, 0)]]
    assert [(tables[i] == tables[j]).mean() < 0.1 for i, j in [(0, 1), (0, 2), (1, 2)]] == [True] * 3


@pytest.mark.parametrize("ep_size", [1, 2])
def test_what_experts_carry_already_is_made_up_for(ep_size):
    counts, base_load_E = np.ones(40, dtype=np.int64), np.array([15, 0, 5, 0])
    table = balanced_table(counts, 4, base_load_E=base_load_E, ep_size=ep_size)
    assert np.bincount(table, minlength=4).tolist() == [0, 15, 10, 15]


@pytest.mark.parametrize(("num_experts", "ep_size", "num_hashes"), [(8, 1, 2), (8, 4, 4), (8, 2, 8), (4, 4, 2)])
def test_relabelling_keeps_the_ranks_together_and_parts_the_heaviest_keys(num_experts, ep_size, num_hashes):
    experts = np.arange(num_experts)
    tables = [
        relabelled(experts, num_experts, hash_number=m, num_hashes=num_hashes, ep_size=ep_size)
        for m in range(num_hashes)
    ]
    assert tables[0].tolist() == experts.tolist() and len({int(table[0]) for table in tables}) == num_hashes
    for table in tables:
        assert sorted(table.tolist()) == experts.tolist()
        ranks = (table // (num_experts // ep_size)).reshape(ep_size, -1)
        assert (ranks == ranks[:, :1]).all()


def test_round_robin_takes_turns():
    assert round_robin_table(7, 3).tolist() == [0, 1, 2, 0, 1, 2, 0]


GOLDEN = {
    "random": "4d17c44a23e8bdf3",
    "balanced": "7452eec21be0f1a6",
    "variant": "6a5d26164f0191fa",
    "ranks": "29b90994f8d78dea",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_same_seed_gives_the_same_bytes_everywhere(name):
    counts = 10_000 // np.arange(1, 1001) * (np.arange(1000) % 7 > 0)
    table = {
        "random": lambda: random_table(1000, 8, seed=1),
        "balanced": lambda: balanced_table(counts, 8),
        "variant": lambda: balanced_table(counts, 8, seed=1, variant=2),
        "ranks": lambda: balanced_table(counts, 8, ep_size=4),
    }[name]()
    assert table.dtype == np.int32
    assert hashlib.sha256(table.astype("<i4").tobytes()).hexdigest()[:16] == GOLDEN[name]


def test_load_summary_counts_in_integers():
    summary = load_summary(np.array([0, 1, 1, 2]), np.array([2**60, 1, 2, 3]), 4, 2)
    assert summary.load_E.tolist() == [2**60, 3, 3, 0]
    assert summary.lower_bound == summary.max_over_mean
    assert summary.rank_max_over_mean == pytest.approx(2.0)


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
def test_counts_that_are_not_a_row_of_integers_are_refused(counts):
    with pytest.raises(ValueError, match="one row of integers, not"):
        balanced_table(counts, 2)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_named(seed):
    with pytest.raises(ValueError, match=f"seed {seed} is not in 0"):
        random_table(3, 2, seed=seed)
