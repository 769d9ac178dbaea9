"""Tables follow their seed and variant to the byte, and use every expert as evenly as their method says."""

import hashlib

import numpy as np
import pytest

from data_prep.tables.assignments import balanced_table, random_table, relabelled, round_robin_table
from tests.data_prep.tables.test_greedy import zipf


@pytest.mark.parametrize("ep_size", [1, 2, 4])
def test_keys_that_were_never_counted_are_dealt_out_evenly(ep_size):
    counts = zipf()
    counts[1000:16_000] = 0
    unseen = balanced_table(counts, 64, ep_size=ep_size)[1000:16_000, 0]
    num_keys = np.bincount(unseen, minlength=64)
    assert num_keys.max() - num_keys.min() <= 1


def test_keys_that_were_never_counted_get_different_experts():
    counts = np.concatenate([zipf(5000, largest=100_000), np.zeros(640, dtype=np.int64)])
    unseen = balanced_table(counts, 64, top_k=3)[5000:]
    assert (np.bincount(unseen.ravel(), minlength=64) == 30).all()
    assert all(len(set(row)) == 3 for row in unseen.tolist())


def test_variants_differ_from_each_other_and_follow_the_seed():
    counts = zipf(5000, largest=100_000)
    tables = [
        balanced_table(counts, 64, seed=seed, variant=variant) for seed, variant in [(0, 0), (0, 1), (0, 2), (1, 1)]
    ]
    for i, table in enumerate(tables):
        for other in tables[:i]:
            assert (table != other).mean() > 0.9
    assert (balanced_table(counts, 64, seed=1, variant=1) == tables[3]).all()


def test_random_uses_every_expert_about_equally_often():
    num_keys = np.bincount(random_table(64_000, 64, seed=3)[:, 0], minlength=64)
    assert len(num_keys) == 64 and 850 < num_keys.min() and num_keys.max() < 1150


def test_random_choices_are_different_and_use_every_expert_about_equally_often():
    table = random_table(32_000, 8, top_k=3, seed=1)
    assert all(len(set(row)) == 3 for row in table.tolist())
    for choice in table.T:
        num_keys = np.bincount(choice, minlength=8)
        assert len(num_keys) == 8 and 3750 < num_keys.min() and num_keys.max() < 4250
    assert (random_table(1000, 8, top_k=8, seed=1).sum(axis=1) == 28).all()


def test_random_tables_differ_by_seed_and_variant():
    tables = [random_table(1000, 64, seed=seed, variant=variant) for seed, variant in [(0, 0), (0, 1), (1, 0)]]
    assert [(tables[i] == tables[j]).mean() < 0.1 for i, j in [(0, 1), (0, 2), (1, 2)]] == [True] * 3


@pytest.mark.parametrize(("num_experts", "ep_size", "num_hashes"), [(8, 1, 2), (8, 4, 4), (8, 2, 8), (4, 4, 2)])
def test_relabelling_keeps_ranks_together_and_separates_the_most_frequent_keys(num_experts, ep_size, num_hashes):
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


@pytest.mark.parametrize(
    ("num_experts", "ep_size", "num_hashes", "hash_number", "found"),
    [
        (6, 1, 3, 1, [2, 3, 4, 5, 0, 1]),  # 3 hashes over 6 experts: 2 apart
        (4, 4, 4, 1, [1, 2, 3, 0]),  # the next rank
        (12, 2, 6, 1, [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]),  # the other rank
        (12, 2, 6, 2, [2, 3, 4, 5, 0, 1, 8, 9, 10, 11, 6, 7]),  # the second of 3 rounds over 6 experts per rank
        (2, 1, 8, 1, [1, 0]),  # more hashes than experts: 1 apart
    ],
)
def test_relabelling_moves_to_the_next_rank_then_along_its_experts(
    num_experts, ep_size, num_hashes, hash_number, found
):
    options = {"hash_number": hash_number, "num_hashes": num_hashes, "ep_size": ep_size}
    assert relabelled(np.arange(num_experts), num_experts, **options).tolist() == found


def test_round_robin_is_the_key_modulo_the_experts():
    assert round_robin_table(7, 3)[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert round_robin_table(4, 3, top_k=2).tolist() == [[0, 1], [1, 2], [2, 0], [0, 1]]


GOLDEN = {
    "random": "4d17c44a23e8bdf3",
    "balanced": "7452eec21be0f1a6",
    "variant": "6a5d26164f0191fa",
    "ranks": "29b90994f8d78dea",
    "random, top 3": "03931f7091b4ccfe",
    "balanced, top 3": "06e6a0219ee97671",
    "variant, top 3": "f216d947c6c47328",
    "ranks, top 3": "142aa6549d071410",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_same_seed_gives_the_same_bytes_everywhere(name):
    counts = 10_000 // np.arange(1, 1001) * (np.arange(1000) % 7 > 0)
    method, top_k = name.split(",")[0], 3 if "top 3" in name else 1
    table = {
        "random": lambda: random_table(1000, 8, top_k=top_k, seed=1),
        "balanced": lambda: balanced_table(counts, 8, top_k=top_k),
        "variant": lambda: balanced_table(counts, 8, top_k=top_k, seed=1, variant=2),
        "ranks": lambda: balanced_table(counts, 8, top_k=top_k, ep_size=4),
    }[method]()
    assert table.dtype == np.int32 and table.shape == (1000, top_k)
    assert hashlib.sha256(table.astype("<i4").tobytes()).hexdigest()[:16] == GOLDEN[name]


COUNTS = np.arange(8)


def test_a_table_has_one_expert_per_key_and_is_the_first_of_seed_0_unless_told():
    table = balanced_table(COUNTS, 4, variant=1)
    assert table.shape == (8, 1) and table.tolist() == balanced_table(COUNTS, 4, seed=0, variant=1).tolist()
    table = random_table(8, 3, seed=1)
    assert table.shape == (8, 1) and table.tolist() == random_table(8, 3, seed=1, variant=0).tolist()
    assert round_robin_table(8, 4).shape == (8, 1)


@pytest.mark.parametrize(
    "table_of",
    [
        lambda top_k: balanced_table(COUNTS, 4, top_k=top_k),
        lambda top_k: random_table(8, 4, top_k=top_k, seed=0),
        lambda top_k: round_robin_table(8, 4, top_k=top_k),
    ],
)
def test_as_many_choices_as_experts_are_possible_and_more_are_refused(table_of):
    assert table_of(4).shape == (8, 4)
    for top_k in (0, 5):
        with pytest.raises(ValueError, match=f"top_k={top_k} different experts cannot be chosen among 4; lower top_k"):
            table_of(top_k)


def test_experts_that_cannot_be_divided_among_ranks_are_refused():
    with pytest.raises(ValueError, match="4 experts cannot be split evenly over ep_size=3 ranks"):
        balanced_table(COUNTS, 4, ep_size=3)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_named(seed):
    with pytest.raises(ValueError, match=f"seed {seed} is not in 0"):
        random_table(3, 2, seed=seed)


def test_the_largest_seed_is_allowed():
    assert random_table(3, 2, seed=2**64 - 1).shape == (3, 1)
