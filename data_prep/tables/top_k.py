"""Tables that give each key several different experts, for models that add up the outputs of their top k."""

import heapq

import numpy as np

from data_prep.tables.assignments import expert_heaps, random_uint64, visiting_order
from data_prep.tables.expert_load import check_experts, checked_counts, expert_load


def balanced_top_k_table(
    counts: np.ndarray, num_experts: int, top_k: int, *, seed: int = 0, variant: int = 0, ep_size: int = 1
) -> np.ndarray:
    """Give the most frequent keys, in turn, to the `top_k` emptiest experts: int32 [num_keys, top_k].

    Seeds, variants, ranks and keys that were never counted are treated as in assignments.balanced_table.
    """
    counts = checked_counts(counts)
    check_top_k(top_k, num_experts, ep_size)
    order = visiting_order(counts, num_experts, seed=seed, variant=variant)
    num_seen = int(np.count_nonzero(counts))
    seen, unseen = order[:num_seen], order[num_seen:]
    table = np.empty((len(counts), top_k), dtype=np.int32)
    table[seen] = _place(counts[seen].tolist(), top_k, num_experts, ep_size)
    emptiest_first_E = np.argsort(expert_load(table[seen], counts[seen], num_experts), kind="stable")
    table[unseen] = emptiest_first_E[np.arange(len(unseen) * top_k).reshape(-1, top_k) % num_experts]
    return table


def random_top_k_table(num_keys: int, num_experts: int, top_k: int, *, seed: int, variant: int = 0) -> np.ndarray:
    """Give every key `top_k` different random experts."""
    check_top_k(top_k, num_experts, 1)
    draws = random_uint64(num_keys * top_k, seed=seed, variant=variant).reshape(num_keys, top_k)
    table = np.empty((num_keys, top_k), dtype=np.int64)
    for j in range(top_k):
        # One of the num_experts - j that are left: step over each expert that is taken, from the lowest up.
        expert = (draws[:, j] % np.uint64(num_experts - j)).astype(np.int64)
        for taken in np.sort(table[:, :j], axis=1).T:
            expert += expert >= taken
        table[:, j] = expert
    return table.astype(np.int32)


def round_robin_top_k_table(num_keys: int, num_experts: int, top_k: int) -> np.ndarray:
    """Give key k to the experts k, k + 1, ... modulo num_experts."""
    check_top_k(top_k, num_experts, 1)
    return ((np.arange(num_keys)[:, None] + np.arange(top_k)) % num_experts).astype(np.int32)


def check_top_k(top_k: int, num_experts: int, ep_size: int) -> None:
    """Refuse to choose more different experts than there are."""
    check_experts(num_experts, ep_size)
    if not 1 <= top_k <= num_experts:
        raise ValueError(f"top_k={top_k} different experts cannot be chosen among {num_experts}; lower top_k")


def _place(counts: list[int], top_k: int, num_experts: int, ep_size: int) -> list[list[int]]:
    """Return the experts of each count, in the given order."""
    limit = max(-(-sum(counts) * top_k // num_experts), max(counts, default=0))
    heaps = expert_heaps([0] * num_experts, ep_size)
    rank_load = [0] * ep_size
    placed = []
    for count in counts:
        taken = []  # out of their heaps until the key has all of its experts, so that these are different
        for _ in range(top_k):
            rank = _emptiest_rank(rank_load, heaps, room=limit - count)
            load, num_keys, expert = heapq.heappop(heaps[rank])
            taken.append((rank, (load + count, num_keys + 1, expert)))
            rank_load[rank] += count
        for rank, entry in taken:
            heapq.heappush(heaps[rank], entry)
        placed.append([expert for _, (_, _, expert) in taken])
    return placed


def _emptiest_rank(rank_load: list[int], heaps: list[list[tuple]], *, room: int) -> int:
    """Return the emptiest rank that has an expert of load <= room; without one, the rank of the emptiest expert."""
    if len(heaps) == 1:
        return 0
    ranks = [rank for rank, heap in enumerate(heaps) if heap]
    with_room = [rank for rank in ranks if heaps[rank][0][0] <= room]
    return min(with_room, key=rank_load.__getitem__) if with_room else min(ranks, key=lambda rank: heaps[rank][0])
