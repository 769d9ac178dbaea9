"""Similar tokens share an expert, or are kept apart, and both follow the seed."""

import numpy as np
import pytest

from data_prep.tables.clusters import clustered_table, disperse, dispersed_table
from data_prep.tables.expert_load import load_summary

CENTRES = np.repeat(np.eye(4) * 100, 50, axis=0)  # four far groups of 50 tokens
EMBEDDINGS = (CENTRES + np.random.Generator(np.random.PCG64(0)).normal(size=CENTRES.shape)).astype(np.float32)
COUNTS = 10_000 // np.arange(1, 201)


def test_similar_tokens_share_an_expert():
    table = clustered_table(EMBEDDINGS, 4, seed=0)
    groups = table.reshape(4, 50)
    assert table.dtype == np.int32 and (groups == groups[:, :1]).all() and len(set(groups[:, 0].tolist())) == 4


def test_dispersed_tokens_of_a_cluster_are_spread_evenly():
    table = dispersed_table(EMBEDDINGS, COUNTS, 4, seed=0)
    for group in table.reshape(4, 50):
        assert np.bincount(group, minlength=4).max() <= 13  # ceil(50 / 4)


def test_dispersed_tokens_are_balanced_by_frequency():
    counts = np.concatenate([100_000 // np.arange(1, 3001), np.zeros(1000, dtype=np.int64)])
    clusters = np.arange(4000) * 7 % 10
    table = disperse(clusters, counts, 8)
    summary = load_summary(table, counts, 8)
    # The most frequent token fills 0.94 of an expert, which still gets its 30 tokens of each cluster: the rarest ones.
    assert summary.max_over_mean <= summary.lower_bound * 1.06
    num_unseen = np.bincount(table[3000:], minlength=8)
    assert num_unseen.max() - num_unseen.min() <= 2


def test_dispersing_is_reproducible_to_the_byte():
    # at most two tokens of cluster 0 and one of cluster 1 per expert: 9 -> 0, 8 -> 1, 7 -> 2, 6 -> 2, 5 -> 1, 3 -> 0
    clusters, counts = np.array([0, 1, 0, 1, 0, 0]), np.array([9, 6, 8, 5, 7, 3])
    assert disperse(clusters, counts, 3).tolist() == [0, 2, 1, 1, 2, 0]


def test_the_seed_and_the_variant_choose_the_clusters():
    noise = np.random.Generator(np.random.PCG64(1)).normal(size=(300, 8)).astype(np.float32)
    tables = [clustered_table(noise, 8, seed=seed, variant=variant) for seed, variant in [(0, 0), (0, 1), (1, 0)]]
    assert (clustered_table(noise, 8, seed=0) == tables[0]).all()
    assert all((tables[i] != tables[j]).any() for i, j in [(0, 1), (0, 2), (1, 2)])


def test_fewer_embeddings_than_clusters_are_refused():
    with pytest.raises(ValueError, match="3 embeddings cannot form 4 clusters"):
        clustered_table(EMBEDDINGS[:3], 4, seed=0)
