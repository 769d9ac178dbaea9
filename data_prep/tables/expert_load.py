"""Load: the spread of tokens over experts and over ranks; rank r holds experts r * E / R to (r + 1) * E / R - 1."""

from dataclasses import dataclass

import numpy as np

MAX_EXPERTS = 2**20  # some thousand times the largest layers in use


@dataclass(frozen=True, eq=False)
class LoadSummary:
    """How evenly a table spreads the counted tokens."""

    max_over_mean: float  # load of the fullest expert / mean load
    lower_bound: float  # the least max_over_mean that any table can have
    rank_max_over_mean: float  # the same for ranks of num_experts / ep_size experts
    load_E: np.ndarray  # int64 [num_experts], counted tokens of each expert


def load_summary(table: np.ndarray, counts: np.ndarray, num_experts: int, ep_size: int = 1) -> LoadSummary:
    """Return the load that `table`, [num_keys] or [num_keys, choices], would have on the corpus of `counts`."""
    counts = checked_counts(counts)
    check_experts(num_experts, ep_size)
    load_E = expert_load(table, counts, num_experts)
    return LoadSummary(
        max_over_mean=max_over_mean(load_E),
        lower_bound=lower_bound(counts, num_experts, choices=table.size // len(counts)),
        rank_max_over_mean=max_over_mean(rank_load(load_E, ep_size)),
        load_E=load_E,
    )


def max_over_mean(load: np.ndarray) -> float:
    """Return the imbalance max / mean of a load [E] or [R]: 1 is perfect, nan if nothing is loaded."""
    total = int(load.sum())
    return int(load.max()) * load.size / total if total else float("nan")


def worst_max_over_mean(load: np.ndarray) -> float:
    """Return the largest imbalance of any layer or table, of a load [L, E] or [L, R]."""
    return max(map(max_over_mean, load))


def rank_load(load_E: np.ndarray, ep_size: int) -> np.ndarray:
    """Return the load of each rank, [..., R], from that of each expert, [..., E]."""
    return load_E.reshape(*load_E.shape[:-1], ep_size, load_E.shape[-1] // ep_size).sum(axis=-1)


def expert_load(table: np.ndarray, counts: np.ndarray, num_experts: int) -> np.ndarray:
    """Return the tokens of each expert, int64 [num_experts], under a table [num_keys] or [num_keys, choices]."""
    load_E = np.zeros(num_experts, dtype=np.int64)
    for choice in table.reshape(len(counts), -1).T:
        np.add.at(load_E, choice, counts)  # not np.bincount: its weighted sums are floats
    return load_E


def lower_bound(counts: np.ndarray, num_experts: int, *, total: int | None = None, choices: int = 1) -> float:
    """Return the least max / mean of any table: the most frequent key is divided among its choices alone.

    `total` is the number of tokens, if it is more than `counts` holds.
    """
    total = int(counts.sum()) if total is None else total
    return max(1.0, int(counts.max()) * num_experts / (total * choices))


def check_experts(num_experts: int, ep_size: int) -> None:
    """Refuse numbers of experts that ranks cannot share evenly."""
    if num_experts < 1 or ep_size < 1:
        raise ValueError(f"num_experts={num_experts} and ep_size={ep_size} must both be at least 1")
    if num_experts > MAX_EXPERTS:
        raise ValueError(
            f"num_experts={num_experts:,} exceeds {MAX_EXPERTS:,}, the most that a layer may have; lower it"
        )
    if num_experts % ep_size != 0:
        raise ValueError(
            f"{num_experts} experts cannot be split evenly over ep_size={ep_size} ranks; "
            f"choose an ep_size that divides {num_experts}"
        )


def checked_counts(counts: np.ndarray) -> np.ndarray:
    """Return `counts` as int64; ValueError unless they are a vector of integers >= 0 and one is positive."""
    counts = np.asarray(counts)
    if counts.ndim != 1 or counts.dtype.kind not in "iu":
        raise ValueError(f"counts must be a vector of integers, not {counts.dtype} of shape {counts.shape}")
    if counts.size == 0 or counts.min() < 0 or counts.max() == 0:
        raise ValueError("counts must be >= 0 with at least one token counted; count a corpus that has tokens")
    return counts.astype(np.int64)
