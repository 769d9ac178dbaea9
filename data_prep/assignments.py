"""Turn counts into tables: which expert serves which key, in integers only, so that every machine agrees.

A table is int32 [num_keys] with entries in 0..num_experts-1. Keys are token ids here; bucketed keys work the same way.
"""

import heapq
from dataclasses import dataclass

import numpy as np


def balanced_table(
    counts: np.ndarray, num_experts: int, *, seed: int = 0, variant: int = 0, ep_size: int = 1
) -> np.ndarray:
    """Give the most frequent keys, in turn, to the emptiest expert (Roller et al., 2021, section 3.2).

    `variant` 0 is the paper's table and ignores `seed`. Variants j > 0, for further sparse layers, visit the keys in
    an order shuffled by (seed, j) within windows of num_experts keys: other tables, as well balanced.
    With ep_size > 1 a key goes to the emptiest rank, then to that rank's emptiest expert, so that ranks are balanced
    too; rank r holds the experts r * num_experts / ep_size up to those of rank r + 1.
    Keys that were never counted are dealt out evenly: by load alone, one expert would get them all.
    """
    counts = _checked_counts(counts)
    check_experts(num_experts, ep_size)
    order = _visiting_order(counts, num_experts, seed=seed, variant=variant)
    num_seen = int(np.count_nonzero(counts))
    seen, unseen = order[:num_seen], order[num_seen:]
    table = np.empty(len(counts), dtype=np.int32)
    table[seen] = _place(counts[seen].tolist(), num_experts, ep_size)
    load_E = _load_E(table[seen], counts[seen], num_experts)
    emptiest_first_E = np.argsort(load_E, kind="stable")
    table[unseen] = emptiest_first_E[np.arange(len(unseen)) % num_experts]
    return table


def random_table(num_keys: int, num_experts: int, *, seed: int, variant: int = 0) -> np.ndarray:
    """Give every key a random expert (Roller et al., 2021, section 3.2); `variant` j is the j-th table of a seed."""
    check_experts(num_experts, 1)
    # 2^64 % num_experts values are drawn once too often: a bias below 1e-15 for any number of experts in use.
    return (_random_uint64(num_keys, seed=seed, variant=variant) % np.uint64(num_experts)).astype(np.int32)


def round_robin_table(num_keys: int, num_experts: int) -> np.ndarray:
    """Give key k to expert k modulo num_experts."""
    check_experts(num_experts, 1)
    return (np.arange(num_keys) % num_experts).astype(np.int32)


@dataclass(frozen=True, eq=False)
class LoadSummary:
    """How evenly a table spreads the counted tokens."""

    max_over_mean: float  # load of the fullest expert / mean load
    lower_bound: float  # the least max_over_mean that any table can have: max(1, p_max * num_experts)
    rank_max_over_mean: float  # the same as max_over_mean for ranks of num_experts / ep_size experts
    load_E: np.ndarray  # int64 [num_experts], counted tokens of each expert


def load_summary(table: np.ndarray, counts: np.ndarray, num_experts: int, ep_size: int = 1) -> LoadSummary:
    """Return the load that `table` would have on the corpus of `counts`."""
    counts = _checked_counts(counts)
    check_experts(num_experts, ep_size)
    load_E = _load_E(table, counts, num_experts)
    return LoadSummary(
        max_over_mean=max_over_mean(load_E),
        lower_bound=max(1.0, int(counts.max()) * num_experts / int(counts.sum())),
        rank_max_over_mean=max_over_mean(load_E.reshape(ep_size, -1).sum(axis=1)),
        load_E=load_E,
    )


def max_over_mean(load: np.ndarray) -> float:
    """Return the load imbalance max / mean; 1 is perfect."""
    return int(load.max()) * load.size / int(load.sum())


def check_experts(num_experts: int, ep_size: int) -> None:
    """Refuse numbers of experts that ranks cannot share evenly."""
    if num_experts < 1 or ep_size < 1:
        raise ValueError(f"num_experts={num_experts} and ep_size={ep_size} must both be at least 1")
    if num_experts % ep_size != 0:
        raise ValueError(
            f"{num_experts} experts cannot be split evenly over ep_size={ep_size} ranks; "
            f"choose an ep_size that divides {num_experts}"
        )


def _visiting_order(counts: np.ndarray, num_experts: int, *, seed: int, variant: int) -> np.ndarray:
    """Keys by (-count, key); variants > 0 shuffle within consecutive windows of num_experts keys.

    The first window stays as it is: each of its keys starts an expert, and ranks need the heaviest keys first.
    """
    order = np.argsort(-counts, kind="stable")
    if variant == 0:
        return order
    head, tail = order[:num_experts], order[num_experts:]
    shuffle = np.argsort(_random_uint64(len(tail), seed=seed, variant=variant), kind="stable")
    by_window = np.argsort(shuffle // num_experts, kind="stable")
    order = np.concatenate([head, tail[shuffle[by_window]]])
    # Unseen keys stay last, also where the border between seen and unseen falls inside a window.
    return order[np.argsort(counts[order] == 0, kind="stable")]


def _place(counts: list[int], num_experts: int, ep_size: int) -> list[int]:
    """Return the expert of each count, in the given order; ties go to fewer keys, then to the lower id."""
    # No expert may pass what the paper's greedy reaches: the mean load or the heaviest key, whichever is larger.
    limit = max(-(-sum(counts) // num_experts), max(counts, default=0))
    ranks = [(0, 0, rank) for rank in range(ep_size)]  # heaps of (load, number of keys, id)
    experts_per_rank = num_experts // ep_size
    experts = [[(0, 0, rank * experts_per_rank + e) for e in range(experts_per_rank)] for rank in range(ep_size)]
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


def _load_E(table: np.ndarray, counts: np.ndarray, num_experts: int) -> np.ndarray:
    load_E = np.zeros(num_experts, dtype=np.int64)
    np.add.at(load_E, table, counts)  # not np.bincount: its weighted sums are floats
    return load_E


def _random_uint64(length: int, *, seed: int, variant: int) -> np.ndarray:
    """Philox's raw stream: unlike numpy's distributions it is the same in every version, on every machine."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed {seed} is not in 0..2^64-1; choose another seed")
    return np.random.Philox(key=np.array([seed, variant], dtype=np.uint64)).random_raw(length)


def _checked_counts(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts)
    if counts.ndim != 1 or counts.dtype.kind not in "iu":
        raise ValueError(f"counts must be one row of integers, not {counts.dtype} of shape {counts.shape}")
    if counts.size == 0 or counts.min() < 0 or counts.max() == 0:
        raise ValueError("counts must be >= 0 with at least one token counted; count a corpus that has tokens")
    return counts.astype(np.int64)
