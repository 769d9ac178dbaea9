"""Tables from a trained model's token embeddings: similar tokens share an expert, or are kept apart.

k-means computes with floats: equal seeds give equal tables with one version of scikit-learn on one kind of machine.
Each function returns int32 [num_tokens].
"""

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from data_prep.tables.assignments import random_uint64
from data_prep.tables.expert_load import check_experts, checked_counts

FULL = np.iinfo(np.int64).max


def clustered_table(embeddings: np.ndarray, num_experts: int, *, seed: int, variant: int = 0) -> np.ndarray:
    """Give each token the expert whose k-means centroid is nearest to its embedding (Roller et al., 2021, section 3.1).

    embeddings: float [num_tokens, hidden_size].
    """
    check_experts(num_experts, 1)
    if len(embeddings) < num_experts:
        raise ValueError(f"{len(embeddings)} embeddings cannot form {num_experts} clusters; use fewer experts")
    state = int(random_uint64(1, seed=seed, variant=variant)[0] % 2**32)
    with threadpool_limits(1):  # sums over threads depend on their number
        return KMeans(num_experts, random_state=state, n_init=1).fit_predict(embeddings).astype(np.int32)


def dispersed_table(
    embeddings: np.ndarray, counts: np.ndarray, num_experts: int, *, seed: int, variant: int = 0
) -> np.ndarray:
    """Deal the tokens of each k-means cluster out evenly over all experts (Roller et al., 2021, section 3.1)."""
    clusters = clustered_table(embeddings, num_experts, seed=seed, variant=variant)
    return disperse(clusters, counts, num_experts)


def disperse(clusters: np.ndarray, counts: np.ndarray, num_experts: int) -> np.ndarray:
    """Give the most frequent tokens, in turn, to the emptiest expert that has room left for their cluster.

    Each cluster is spread evenly: no expert gets more than ceil(n / num_experts) of its n counted tokens, nor of those
    that were never counted.
    """
    counts = checked_counts(counts)
    table = np.empty(len(counts), dtype=np.int32)
    group_of_token = 2 * clusters + (counts == 0)  # group G: the counted, or the uncounted, tokens of a cluster
    room_GE = np.repeat(-(-np.bincount(group_of_token) // num_experts)[:, None], num_experts, axis=1)
    load_E, num_unseen_E = np.zeros(num_experts, dtype=np.int64), np.zeros(num_experts, dtype=np.int64)
    for token in np.argsort(-counts, kind="stable"):
        room_E = room_GE[group_of_token[token]]
        expert = np.where(room_E > 0, load_E if counts[token] else num_unseen_E, FULL).argmin()
        table[token] = expert
        room_E[expert] -= 1
        load_E[expert] += counts[token]
        num_unseen_E[expert] += counts[token] == 0
    return table
