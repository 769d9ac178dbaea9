"""Assign experts to keys from counts alone: balanced, random or round robin, the same on every machine.

Each function returns int32 [num_keys, top_k] with entries in 0..num_experts-1; a key's `top_k` experts are different.
"""

import numpy as np

from data_prep.tables.expert_load import check_experts, checked_counts, expert_load
from data_prep.tables.greedy import place


def balanced_table(
    counts: np.ndarray,
    num_experts: int,
    *,
    top_k: int = 1,
    seed: int = 0,
    variant: int = 0,
    ep_size: int = 1,
    base_load_E: np.ndarray | None = None,
) -> np.ndarray:
    """Give the most frequent keys, in turn, to the emptiest experts (Roller et al., 2021, section 3.2).

    `variant` 0 is the paper's table and ignores `seed`. Variants j > 0, for more sparse layers, visit the keys in
    an order shuffled by (seed, j) within windows of num_experts keys: other tables, equally well balanced.
    With ep_size > 1, a key goes to the emptiest rank, then to that rank's emptiest expert: ranks are balanced too.
    Keys that were never counted are dealt out evenly: by load alone, one expert would get them all.
    `base_load_E` is the load that the experts have already, int64 [num_experts].
    """
    counts = checked_counts(counts)
    check_top_k(top_k, num_experts, ep_size)
    base_load_E = np.zeros(num_experts, dtype=np.int64) if base_load_E is None else base_load_E
    order = visiting_order(counts, num_experts, seed=seed, variant=variant)
    num_seen = int(np.count_nonzero(counts))
    seen, unseen = order[:num_seen], order[num_seen:]
    table = np.empty((len(counts), top_k), dtype=np.int32)
    table[seen] = place(counts[seen].tolist(), base_load_E.tolist(), top_k=top_k, ep_size=ep_size)
    load_E = base_load_E + expert_load(table[seen], counts[seen], num_experts)
    emptiest_first_E = np.argsort(load_E, kind="stable")
    table[unseen] = emptiest_first_E[np.arange(len(unseen) * top_k).reshape(-1, top_k) % num_experts]
    return table


def random_table(num_keys: int, num_experts: int, *, top_k: int = 1, seed: int, variant: int = 0) -> np.ndarray:
    """Give every key random experts (Roller et al., 2021, section 3.2); `variant` j is the j-th table of a seed."""
    check_top_k(top_k, num_experts, 1)
    draws = random_uint64(num_keys * top_k, seed=seed, variant=variant).reshape(num_keys, top_k)
    table = np.empty((num_keys, top_k), dtype=np.int64)
    for j in range(top_k):
        # Choose among the num_experts - j that are left: step over each expert that is taken, from the lowest up.
        # 2^64 % num_experts values are drawn once too often: a bias below 1e-15 for any number of experts in use.
        expert = (draws[:, j] % np.uint64(num_experts - j)).astype(np.int64)
        for taken in np.sort(table[:, :j], axis=1).T:
            expert += expert >= taken
        table[:, j] = expert
    return table.astype(np.int32)


def round_robin_table(num_keys: int, num_experts: int, *, top_k: int = 1) -> np.ndarray:
    """Give key k to the experts k, k + 1, ... modulo num_experts."""
    check_top_k(top_k, num_experts, 1)
    return ((np.arange(num_keys)[:, None] + np.arange(top_k)) % num_experts).astype(np.int32)


def relabelled(table: np.ndarray, num_experts: int, *, hash_number: int, num_hashes: int, ep_size: int) -> np.ndarray:
    """Rename the experts of a table by its hash's number: ranks move along their ring, and experts along their rank's.

    Loads keep their shape. Without it, the most frequent keys would have the same expert under every hash, and their
    loads would add up.
    """
    per_rank = num_experts // ep_size
    rank, local = table // per_rank, table % per_rank
    rank = (rank + hash_number) % ep_size
    num_rounds = -(-num_hashes // ep_size)  # how often the hashes go round the ring of ranks
    local = (local + hash_number // ep_size * max(1, per_rank // num_rounds)) % per_rank
    return (rank * per_rank + local).astype(np.int32)


def visiting_order(counts: np.ndarray, num_experts: int, *, seed: int, variant: int) -> np.ndarray:
    """Return the keys by (-count, key); variants > 0 shuffle within consecutive windows of num_experts keys.

    The first window stays as it is: each of its keys starts an expert, and ranks need the most frequent keys first.
    """
    order = np.argsort(-counts, kind="stable")
    if variant == 0:
        return order
    head, tail = order[:num_experts], order[num_experts:]
    shuffle = np.argsort(random_uint64(len(tail), seed=seed, variant=variant), kind="stable")
    by_window = np.argsort(shuffle // num_experts, kind="stable")
    order = np.concatenate([head, tail[shuffle[by_window]]])
    # Keys that were never counted stay last, even if the border falls inside a window.
    return order[np.argsort(counts[order] == 0, kind="stable")]


def check_top_k(top_k: int, num_experts: int, ep_size: int) -> None:
    """Refuse to choose more different experts than there are."""
    check_experts(num_experts, ep_size)
    if not 1 <= top_k <= num_experts:
        raise ValueError(f"top_k={top_k} different experts cannot be chosen among {num_experts}; lower top_k")


def random_uint64(length: int, *, seed: int, variant: int) -> np.ndarray:
    """Return Philox's raw stream: unlike numpy's distributions, it is the same in every version, on every machine."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed {seed} is not in 0..2^64-1; choose another seed")
    return np.random.Philox(key=np.array([seed, variant], dtype=np.uint64)).random_raw(length)
