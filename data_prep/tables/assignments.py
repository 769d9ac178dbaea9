"""Turn counts into tables: which expert serves which key, in integers only, so that every machine agrees.

A table is int32 [num_keys] with entries in 0..num_experts-1. Keys are token ids here; bucketed keys work the same way.
"""

import heapq

import numpy as np

from data_prep.tables.expert_load import check_experts, checked_counts, expert_load


def balanced_table(
    counts: np.ndarray,
    num_experts: int,
    *,
    seed: int = 0,
    variant: int = 0,
    ep_size: int = 1,
    base_load_E: np.ndarray | None = None,
) -> np.ndarray:
    """Give the most frequent keys, in turn, to the emptiest expert (Roller et al., 2021, section 3.2).

    `variant` 0 is the paper's table and ignores `seed`. Variants j > 0, for further sparse layers, visit the keys in
    an order shuffled by (seed, j) within windows of num_experts keys: other tables, as well balanced.
    With ep_size > 1 a key goes to the emptiest rank, then to that rank's emptiest expert, so that ranks are balanced
    too; rank r holds the experts r * num_experts / ep_size up to those of rank r + 1.
    Keys that were never counted are dealt out evenly: by load alone, one expert would get them all.
    `base_load_E` is what the experts carry already, int64 [num_experts].
    """
    counts = checked_counts(counts)
    check_experts(num_experts, ep_size)
    base_load_E = np.zeros(num_experts, dtype=np.int64) if base_load_E is None else base_load_E
    order = visiting_order(counts, num_experts, seed=seed, variant=variant)
    num_seen = int(np.count_nonzero(counts))
    seen, unseen = order[:num_seen], order[num_seen:]
    table = np.empty(len(counts), dtype=np.int32)
    table[seen] = _place(counts[seen].tolist(), base_load_E.tolist(), ep_size)
    load_E = base_load_E + expert_load(table[seen], counts[seen], num_experts)
    emptiest_first_E = np.argsort(load_E, kind="stable")
    table[unseen] = emptiest_first_E[np.arange(len(unseen)) % num_experts]
    return table


def random_table(num_keys: int, num_experts: int, *, seed: int, variant: int = 0) -> np.ndarray:
    """Give every key a random expert (Roller et al., 2021, section 3.2); `variant` j is the j-th table of a seed."""
    check_experts(num_experts, 1)
    # 2^64 % num_experts values are drawn once too often: a bias below 1e-15 for any number of experts in use.
    return (random_uint64(num_keys, seed=seed, variant=variant) % np.uint64(num_experts)).astype(np.int32)


def round_robin_table(num_keys: int, num_experts: int) -> np.ndarray:
    """Give key k to expert k modulo num_experts."""
    check_experts(num_experts, 1)
    return (np.arange(num_keys) % num_experts).astype(np.int32)


def relabelled(table: np.ndarray, num_experts: int, *, hash_number: int, num_hashes: int, ep_size: int) -> np.ndarray:
    """Turn the ring of ranks, and that of each rank's experts, by the hash's number: loads keep their shape.

    Without it the heaviest keys would have the same expert under every hash, and their loads would add up.
    """
    per_rank = num_experts // ep_size
    rank, local = table // per_rank, table % per_rank
    rank = (rank + hash_number) % ep_size
    turns = -(-num_hashes // ep_size)  # times that the ring of ranks is gone round
    local = (local + hash_number // ep_size * max(1, per_rank // turns)) % per_rank
    return (rank * per_rank + local).astype(np.int32)


def visiting_order(counts: np.ndarray, num_experts: int, *, seed: int, variant: int) -> np.ndarray:
    """Keys by (-count, key); variants > 0 shuffle within consecutive windows of num_experts keys.

    The first window stays as it is: each of its keys starts an expert, and ranks need the heaviest keys first.
    """
    order = np.argsort(-counts, kind="stable")
    if variant == 0:
        return order
    head, tail = order[:num_experts], order[num_experts:]
    shuffle = np.argsort(random_uint64(len(tail), seed=seed, variant=variant), kind="stable")
    by_window = np.argsort(shuffle // num_experts, kind="stable")
    order = np.concatenate([head, tail[shuffle[by_window]]])
    # Unseen keys stay last, also where the border between seen and unseen falls inside a window.
    return order[np.argsort(counts[order] == 0, kind="stable")]


def _place(counts: list[int], base_load: list[int], ep_size: int) -> list[int]:
    """Return the expert of each count, in the given order; ties go to fewer keys, then to the lower id."""
    # No expert may pass what the paper's greedy reaches: the mean load or the heaviest key, whichever is larger.
    limit = max(-(-(sum(counts) + sum(base_load)) // len(base_load)), max(counts, default=0))
    experts = expert_heaps(base_load, ep_size)
    ranks = [(sum(load for load, _, _ in heap), 0, rank) for rank, heap in enumerate(experts)]
    heapq.heapify(ranks)
    placed = []
    for count in counts:
        position = _rank_with_room(ranks, experts, limit - count)
        load, num_keys, rank = ranks[position]
        if position == 0:
            heapq.heapreplace(ranks, (load + count, num_keys + 1, rank))
        else:
            ranks[position] = (load + count, num_keys + 1, rank)
            heapq.heapify(ranks)
        load, num_keys, expert = experts[rank][0]
        heapq.heapreplace(experts[rank], (load + count, num_keys + 1, expert))
        placed.append(expert)
    return placed


def expert_heaps(base_load: list[int], ep_size: int) -> list[list[tuple[int, int, int]]]:
    """Return each rank's heap of (load, number of keys, expert)."""
    experts = [(load, 0, expert) for expert, load in enumerate(base_load)]
    per_rank = len(experts) // ep_size
    heaps = [experts[rank * per_rank : (rank + 1) * per_rank] for rank in range(ep_size)]
    for heap in heaps:
        heapq.heapify(heap)
    return heaps


def _rank_with_room(ranks: list[tuple], experts: list[list[tuple]], room: int) -> int:
    """Return where in `ranks` the emptiest rank stands that has an expert of load <= room.

    Without one, the rank of the emptiest expert: the paper's greedy, which ranks must not make worse.
    """

    def emptiest_expert(position: int) -> tuple:
        return experts[ranks[position][2]][0]

    if len(ranks) == 1 or emptiest_expert(0)[0] <= room:
        return 0
    positions = range(len(ranks))
    with_room = [position for position in positions if emptiest_expert(position)[0] <= room]
    return min(with_room, key=ranks.__getitem__) if with_room else min(positions, key=emptiest_expert)


def random_uint64(length: int, *, seed: int, variant: int) -> np.ndarray:
    """Philox's raw stream: unlike numpy's distributions it is the same in every version, on every machine."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed {seed} is not in 0..2^64-1; choose another seed")
    return np.random.Philox(key=np.array([seed, variant], dtype=np.uint64)).random_raw(length)
