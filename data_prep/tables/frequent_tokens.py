"""Split tokens that are too frequent for one expert over several, by the token before them (beyond the paper).

The comma alone is 5% of English text: with 64 experts of 1.6% each, no table of tokens can be balanced. Here a frequent
token is cut into parts, and parts are placed like tokens. The previous token decides which part an occurrence belongs
to; if a single bigram is still too frequent, it is a group of parts, and the position decides. Both are known when the
token is read, so the model stays causal. For the comma with 64 experts:

    split_index     [V]          comma -> row 0;  every other token -> -1, not split
    split_table     [F, P]       row 0:  after "and" -> 3     after "said" -> -1     start of a context -> 5
                                         expert 3             group 0                expert 5
    position_table  [G, period]  group 0:  position 0 1 2 3 ... modulo period -> experts 7 9 7 9 ...

An entry of split_table is an expert or, below 0, the code of a group: -1 for group 0, -2 for group 1, ...
"""

import hashlib
from dataclasses import dataclass, fields

import numpy as np

from data_prep.storage.tensor_file import check_range, tensor_digest
from data_prep.tables.assignments import balanced_table
from data_prep.tables.expert_load import expert_load

PERIOD = 840  # positions after which the parts of a group repeat: a multiple of every number of parts up to 8


@dataclass(frozen=True, eq=False)
class FrequentTokenSplit:
    """Which expert serves which occurrence of a split token, as drawn above."""

    split_index: np.ndarray  # int32 [V], the token's row in split_table, or -1
    split_table: np.ndarray  # int32 [F, P], by previous token: an expert, or the code of a group
    position_table: np.ndarray  # int32 [G, period], the expert at position % period

    def experts(self, row: np.ndarray, previous: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Return the expert of each occurrence, int32: of split token `row` after `previous` at `position`."""
        entry = self.split_table[row, previous]
        is_group = entry < 0
        column = position[is_group] % self.position_table.shape[1]
        entry[is_group] = self.position_table[group_code(entry[is_group]), column]
        return entry

    @property
    def start_experts(self) -> np.ndarray:
        """The expert of each split token at the start of a context, where no token precedes it: int32 [F]."""
        row_F = np.arange(len(self.split_table))
        return self.experts(row_F, np.full_like(row_F, -1), np.zeros_like(row_F))  # the last column is none

    @property
    def digest(self) -> str:
        """The digest of the three tables together."""
        tensors = (self.split_index, self.split_table, self.position_table)
        return "sha256:" + hashlib.sha256("".join(tensor_digest(tensor) for tensor in tensors).encode()).hexdigest()


def group_code(group: np.ndarray) -> np.ndarray:
    """Return -(g + 1), the entry of split_table that stands for group g; and the group of such a code."""
    return -1 - group


def check_split(split: FrequentTokenSplit, *, vocab_size: int, num_experts: int) -> None:
    """Raise ValueError if the tensors contradict each other, the vocabulary or the number of experts."""
    tensors = [getattr(split, field.name) for field in fields(FrequentTokenSplit)]
    num_split, num_groups = len(split.split_table), len(split.position_table)
    shapes = [list(tensor.shape) for tensor in tensors]
    expected = [[vocab_size], [num_split, vocab_size + 1], [num_groups, *split.position_table.shape[1:2]]]
    if shapes != expected or {tensor.dtype for tensor in tensors} != {np.dtype("int32")}:
        raise ValueError(f"split tensors must be int32 of shapes {expected}, not {shapes}")
    check_range("split_index", split.split_index, -1, num_split - 1)
    check_range("split_table", split.split_table, -num_groups, num_experts - 1)
    check_range("position_table", split.position_table, 0, num_experts - 1)


def frequent_tokens(counts_V: np.ndarray, num_experts: int, *, split_threshold: float = 1.0) -> np.ndarray:
    """Return the ids with a count above `split_threshold` times an expert's mean load, in order."""
    if not split_threshold > 0:
        raise ValueError(f"--split_threshold {split_threshold} must be above 0: a share of an expert's mean load")
    frequent = np.flatnonzero(counts_V * num_experts > int(counts_V.sum()) * split_threshold)
    if 0 < len(frequent) == np.count_nonzero(counts_V):
        raise ValueError(
            f"--split_threshold {split_threshold} with {num_experts} experts splits all {len(frequent):,} tokens that "
            "occur, and leaves none to balance; raise it, or use fewer experts"
        )
    return frequent


def max_part_tokens(counts_V: np.ndarray, num_experts: int, *, split_threshold: float = 1.0) -> int:
    """Return half the count at which tokens are split, so that no part fills an expert: other texts may use it less."""
    return max(1, int(int(counts_V.sum()) * split_threshold) // (2 * num_experts))


def place_parts(
    counts_V: np.ndarray,
    tokens_F: np.ndarray,
    bigrams_FP: np.ndarray,
    num_experts: int,
    *,
    max_tokens: int,
    ep_size: int = 1,
) -> tuple[FrequentTokenSplit, np.ndarray]:
    """Cut `tokens_F` into parts of about `max_tokens` occurrences, place the parts like tokens, and return their load.

    The load is int64 [num_experts].
    """
    frequent_first_P = np.argsort(-np.append(counts_V, 0), kind="stable")
    counts: list[int] = []  # of the parts of all tokens
    groups: list[list[int]] = []  # of all tokens: the parts of each
    rows: list[np.ndarray] = []
    for bigrams_P in bigrams_FP:
        parts = _cut(bigrams_P, max_tokens, frequent_first_P)
        # Number the token's parts and groups after those of the tokens before it; codes run downwards.
        rows.append(np.where(parts.entry_P >= 0, parts.entry_P + len(counts), parts.entry_P - len(groups)))
        groups += [[part + len(counts) for part in group] for group in parts.groups]
        counts += parts.counts
    expert_of_part = balanced_table(np.array(counts), num_experts, ep_size=ep_size)[:, 0]
    entry_FP = np.stack(rows)
    split_table = np.where(entry_FP >= 0, expert_of_part[np.maximum(entry_FP, 0)], entry_FP).astype(np.int32)
    part_at = [[group[position % len(group)] for position in range(PERIOD)] for group in groups]
    position_table = expert_of_part[np.array(part_at, dtype=np.int64).reshape(-1, PERIOD)]
    split_index = np.full(len(counts_V), -1, dtype=np.int32)
    split_index[tokens_F] = np.arange(len(tokens_F))
    split = FrequentTokenSplit(split_index, split_table, position_table)
    return split, expert_load(expert_of_part, np.array(counts), num_experts)


@dataclass(frozen=True, eq=False)
class _Parts:
    """The parts of one token."""

    entry_P: np.ndarray  # by previous token: a part, or the code of a group
    counts: list[int]  # occurrences of each part
    groups: list[list[int]]  # the parts of each group


def _cut(bigrams_P: np.ndarray, max_tokens: int, frequent_first_P: np.ndarray) -> _Parts:
    too_frequent = np.flatnonzero(bigrams_P > max_tokens)
    rest_P = bigrams_P.copy()
    rest_P[too_frequent] = 0
    num_parts = max(1, -(-int(rest_P.sum()) // max_tokens))
    entry_P = balanced_table(rest_P, num_parts)[:, 0] if rest_P.any() else np.zeros(len(rest_P), dtype=np.int32)
    unseen = frequent_first_P[bigrams_P[frequent_first_P] == 0]
    entry_P[unseen] = np.arange(len(unseen)) % num_parts  # the most frequent previous tokens apart from each other
    counts = expert_load(entry_P, rest_P, num_parts).tolist()
    groups = []
    for previous in too_frequent:
        entry_P[previous] = group_code(len(groups))
        shares = _even_shares(int(bigrams_P[previous]), max_tokens)
        groups.append([len(counts) + share for share in range(len(shares))])
        counts += shares
    return _Parts(entry_P, counts, groups)


def _even_shares(count: int, max_tokens: int) -> list[int]:
    num_shares = -(-count // max_tokens)
    return [(count + share) // num_shares for share in range(num_shares)]
