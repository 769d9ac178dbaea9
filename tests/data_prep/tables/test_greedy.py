"""Balanced tables are balanced as far as any can be, over experts and ranks, for one expert per key and for several."""

from itertools import product

import numpy as np
import pytest

from data_prep.tables.assignments import balanced_table, random_table
from data_prep.tables.expert_load import load_summary
from data_prep.tables.greedy import place

NUM_KEYS = 50_257


def zipf(num_keys=NUM_KEYS, *, largest=1_000_000):
    """Counts of natural shape: the n-th key occurs largest / n times, so its tail is long; shuffled over the ids."""
    return (largest // np.arange(1, num_keys + 1))[np.random.Generator(np.random.PCG64(0)).permutation(num_keys)]


FEWER = zipf(5000, largest=100_000)


def paper_greedy(counts, num_experts):
    """The method in words: the most frequent token goes to the emptiest bucket."""
    table, load, num_keys = [None] * len(counts), [0] * num_experts, [0] * num_experts
    for key in sorted(range(len(counts)), key=lambda key: (-counts[key], key)):
        expert = min(range(num_experts), key=lambda e: (load[e], num_keys[e], e))
        table[key] = [expert]
        load[expert] += counts[key]
        num_keys[expert] += 1
    return table


def test_a_placement_that_a_person_can_check():
    # 7 -> expert 0, 5 -> 1, 4 -> 2, 3 -> 2 (4 + 3), 2 -> 1 (5 + 2), 1 -> 0 by (load 7, one key)
    assert place([7, 5, 4, 3, 2, 1], [0, 0, 0]) == [[0], [1], [2], [2], [1], [0]]


def test_a_placement_of_two_choices_that_a_person_can_check():
    # 5 -> experts 0 and 1, 4 -> 2 and 0 (both others are fuller or equal: 0 by its lower id), 3 -> 1 and 2
    assert place([5, 4, 3], [0, 0, 0], top_k=2) == [[0, 1], [2, 0], [2, 1]]


def test_two_choices_of_one_key_take_different_experts_of_one_rank_only_if_no_other_rank_has_room():
    assert place([4, 4], [0, 0, 0, 0], top_k=2, ep_size=2) == [[0, 2], [1, 3]]
    assert place([4], [0, 0, 0, 0], top_k=3, ep_size=2) == [[0, 2, 1]]


def slow_place(counts, base_load, *, top_k, ep_size):
    """The placement without heaps: every choice looks at every expert that the key does not have yet."""
    load, num_keys, placed = list(base_load), [0] * len(base_load), []
    per_rank = len(load) // ep_size
    limit = max(-(-(sum(counts) * top_k + sum(load)) // len(load)), *counts)

    def rank_entry(rank):
        mine = slice(rank * per_rank, (rank + 1) * per_rank)
        return sum(load[mine]), sum(num_keys[mine]), rank

    for count in counts:
        free = set(range(len(load)))
        placed.append([])
        for _ in range(top_k):
            emptiest = min(free, key=lambda e: (load[e], num_keys[e], e))
            with_room = {e // per_rank for e in free if load[e] + count <= limit}
            rank = min(with_room, key=rank_entry) if with_room else emptiest // per_rank
            expert = min((e for e in free if e // per_rank == rank), key=lambda e: (load[e], num_keys[e], e))
            free.remove(expert)
            placed[-1].append(expert)
            load[expert] += count
            num_keys[expert] += 1
    return placed


@pytest.mark.parametrize("ep_size", [1, 2, 4, 8])
@pytest.mark.parametrize("top_k", [1, 3])
def test_heaps_place_as_a_search_of_all_experts_does(ep_size, top_k):
    generator = np.random.Generator(np.random.PCG64(0))
    for number, largest in product((2, 5, 40), (1, 3, 10, 100) * 10):  # few keys may exceed the mean load
        counts = generator.integers(0, largest, number, endpoint=True).tolist()
        base_load = generator.integers(0, number * largest // 8, 8, endpoint=True).tolist()
        options = {"top_k": top_k, "ep_size": ep_size}
        assert place(counts, base_load, **options) == slow_place(counts, base_load, **options)


def test_variant_0_is_the_papers_greedy():
    counts = zipf(300, largest=5000) + 1
    assert balanced_table(counts, 7, seed=9).tolist() == paper_greedy(counts.tolist(), 7)


@pytest.mark.parametrize("variant", [0, 1])
@pytest.mark.parametrize("num_experts", [16, 64, 256, 1024, 4096])
def test_one_expert_per_key_meets_the_lower_bound_of_any_table(num_experts, variant):
    counts = zipf()
    summary = load_summary(balanced_table(counts, num_experts, variant=variant), counts, num_experts)
    assert summary.lower_bound <= summary.max_over_mean <= summary.lower_bound * 1.001


@pytest.mark.parametrize("variant", [0, 1])
@pytest.mark.parametrize(
    ("num_experts", "top_k", "ep_size"), [(16, 2, 1), (64, 6, 1), (64, 6, 8), (8, 6, 4), (4, 4, 2)]
)
def test_several_different_experts_per_key_meet_the_lower_bound(num_experts, top_k, ep_size, variant):
    table = balanced_table(FEWER, num_experts, top_k=top_k, variant=variant, ep_size=ep_size)
    assert all(len(set(row)) == top_k for row in table.tolist())
    summary = load_summary(table, FEWER, num_experts, ep_size)
    assert summary.load_E.sum() == top_k * FEWER.sum()
    assert summary.lower_bound <= summary.max_over_mean <= summary.lower_bound * 1.001
    assert summary.rank_max_over_mean <= summary.lower_bound * 1.001


@pytest.mark.parametrize("variant", [0, 1])
@pytest.mark.parametrize(("num_experts", "ep_size"), [(16, 2), (16, 8), (64, 4), (64, 8), (256, 8), (16, 16)])
def test_ranks_are_balanced_without_a_fuller_expert(num_experts, ep_size, variant):
    counts = zipf()  # the first key is 9% of all: alone on its expert from E=16 on, and a rank's whole share at R=11
    table = balanced_table(counts, num_experts, ep_size=ep_size, variant=variant)
    summary = load_summary(table, counts, num_experts, ep_size)
    assert summary.max_over_mean <= summary.lower_bound * 1.001
    assert summary.rank_max_over_mean <= max(1.0, counts.max() / counts.sum() * ep_size) * 1.001


def test_random_tables_leave_ranks_unbalanced():
    counts = zipf()
    assert load_summary(random_table(NUM_KEYS, 64, seed=0), counts, 64, 8).rank_max_over_mean > 1.1


def test_a_rank_with_a_frequent_key_fills_its_other_experts_less():
    counts = np.array([30] + [1] * 50)  # 80 tokens, 4 experts of 20, 2 ranks of 40
    summary = load_summary(balanced_table(counts, 4, ep_size=2), counts, 4, 2)
    assert summary.load_E.tolist() == [30, 10, 20, 20]
    assert (summary.max_over_mean, summary.rank_max_over_mean) == (1.5, 1.0)


@pytest.mark.parametrize("ep_size", [1, 2])
def test_experts_that_carry_a_load_already_get_less(ep_size):
    counts, base_load_E = np.ones(40, dtype=np.int64), np.array([15, 0, 5, 0])
    table = balanced_table(counts, 4, base_load_E=base_load_E, ep_size=ep_size)
    assert np.bincount(table[:, 0], minlength=4).tolist() == [0, 15, 10, 15]
