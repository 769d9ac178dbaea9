"""The greedy placement behind every balanced table: keys go to the emptiest experts, one after the other.

It computes with integers only, so that every machine finds the same table.
"""

import heapq
import math

Entry = tuple[int, int, int]  # (load, number of keys, id): the least one is the emptiest, ties go to the lower id
NO_EXPERT = (math.inf, 0, 0)  # the emptiest expert of a rank whose experts all serve the key already


def place(counts: list[int], base_load: list[int], *, top_k: int = 1, ep_size: int = 1) -> list[list[int]]:
    """Return the `top_k` different experts of each count, placed in the given order on top of `base_load` [E].

    Each is the emptiest expert of the emptiest rank; ties go to the one with fewer keys, then to the lower id.
    """
    # No expert may exceed what one rank alone would reach: the mean load or the largest count, whichever is larger.
    mean = -(-(sum(counts) * top_k + sum(base_load)) // len(base_load))
    limit = max(mean, max(counts, default=0))
    experts = _expert_heaps(base_load, ep_size)
    ranks = [(sum(load for load, _, _ in heap), 0, rank) for rank, heap in enumerate(experts)]
    heapq.heapify(ranks)
    placed = []
    for count in counts:
        taken = []  # out of their heaps until the key has all of its experts, so that these are different
        for _ in range(top_k):
            rank = _add_to_rank(ranks, _rank_with_room(ranks, experts, limit - count), count)
            load, num_keys, expert = heapq.heappop(experts[rank])
            taken.append((rank, (load + count, num_keys + 1, expert)))
        for rank, entry in taken:
            heapq.heappush(experts[rank], entry)
        placed.append([expert for _, (_, _, expert) in taken])
    return placed


def _expert_heaps(base_load: list[int], ep_size: int) -> list[list[Entry]]:
    """Return the heap of each rank's experts."""
    experts = [(load, 0, expert) for expert, load in enumerate(base_load)]
    per_rank = len(experts) // ep_size
    heaps = [experts[rank * per_rank : (rank + 1) * per_rank] for rank in range(ep_size)]
    for heap in heaps:
        heapq.heapify(heap)
    return heaps


def _rank_with_room(ranks: list[Entry], experts: list[list[Entry]], room: int) -> int:
    """Return the index in the heap `ranks` of the emptiest rank that has an expert of load <= room.

    If there is none, the rank of the emptiest expert: balancing ranks must not load experts more than one rank would.
    """

    def emptiest_expert(index: int) -> tuple:
        heap = experts[ranks[index][2]]
        return heap[0] if heap else NO_EXPERT

    if len(ranks) == 1 or emptiest_expert(0)[0] <= room:
        return 0
    indices = range(len(ranks))
    with_room = [index for index in indices if emptiest_expert(index)[0] <= room]
    return min(with_room, key=ranks.__getitem__) if with_room else min(indices, key=emptiest_expert)


def _add_to_rank(ranks: list[Entry], index: int, count: int) -> int:
    """Add a key to the rank at `index` of the heap, and return the rank."""
    load, num_keys, rank = ranks[index]
    entry = (load + count, num_keys + 1, rank)
    if index == 0:
        heapq.heapreplace(ranks, entry)
    else:
        ranks[index] = entry
        heapq.heapify(ranks)
    return rank
