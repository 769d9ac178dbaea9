"""Split the tokens that are too heavy for one expert over several, by the token before them (beyond the paper).

The comma alone is 5% of English text: with 64 experts of 1.6% each no table of tokens can be balanced. Here it counts
as several parts. Which one an occurrence belongs to, the previous token says, and where a single bigram is still too
heavy its position does: both are known when the token is read, so that the model stays causal.
Suffixes: V tokens, P = V + 1 previous tokens (the last: none), H heavy tokens.
"""

import numpy as np

from data_prep.counts.hash_keys import previous_tokens
from data_prep.shards.contexts import read_contexts
from data_prep.shards.token_stream import TokenStream
from data_prep.tables.assignments import balanced_table
from data_prep.tables.expert_load import expert_load

PERIOD = 840  # positions of a group take turns; 840 is a multiple of every number of parts up to 8


def heavy_tokens(counts_V: np.ndarray, num_experts: int, *, split_threshold: float = 1.0) -> np.ndarray:
    """Return the ids whose count exceeds `split_threshold` times the mean load of an expert, in order."""
    if not split_threshold > 0:
        raise ValueError(f"--split_threshold {split_threshold} must be above 0: a share of an expert's mean load")
    return np.flatnonzero(counts_V * num_experts > int(counts_V.sum()) * split_threshold)


def count_bigrams(stream: TokenStream, tokens_H: np.ndarray, *, vocab_size: int, context_length: int = 0) -> np.ndarray:
    """Count what stands before each of `tokens_H`: int64 [H, P]."""
    row_V = np.full(vocab_size, -1)
    row_V[tokens_H] = np.arange(len(tokens_H))
    shape = (len(tokens_H), vocab_size + 1)
    counts = np.zeros(shape[0] * shape[1], dtype=np.int64)
    for tokens, lead in read_contexts(stream, context_length=context_length):
        previous = previous_tokens(tokens, vocab_size=vocab_size, context_length=context_length)[lead:]
        row = row_V[tokens[lead:]]
        heavy = row >= 0
        np.add.at(counts, row[heavy] * shape[1] + previous[heavy], 1)
    return counts.reshape(shape)


def split_heavy_tokens(
    counts_V: np.ndarray, bigrams_HP: np.ndarray, num_experts: int, *, most: int, ep_size: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut each heavy token into parts of about `most` occurrences, or fewer, and place them like tokens.

    Returns split_table and position_table as in route_table.HeavySplit, and the load of the parts on each expert.
    """
    frequent_first_P = np.argsort(-np.append(counts_V, 0), kind="stable")
    counts: list[int] = []  # of each part
    groups: list[list[int]] = []  # the parts of each bigram that positions divide
    rows: list[np.ndarray] = []
    for bigrams_P in bigrams_HP:
        part_P, own_counts, own_groups = _parts(bigrams_P, most, frequent_first_P)
        rows.append(np.where(part_P >= 0, part_P + len(counts), part_P - len(groups)))
        groups += [[part + len(counts) for part in group] for group in own_groups]
        counts += own_counts
    expert_of_part = balanced_table(np.array(counts), num_experts, ep_size=ep_size)
    part_HP = np.stack(rows)
    split_table = np.where(part_HP >= 0, expert_of_part[np.maximum(part_HP, 0)], part_HP)
    turns = [[group[position % len(group)] for position in range(PERIOD)] for group in groups]
    position_table = expert_of_part[np.array(turns, dtype=np.int64).reshape(-1, PERIOD)]
    return split_table.astype(np.int32), position_table, expert_load(expert_of_part, np.array(counts), num_experts)


def largest_part(counts_V: np.ndarray, num_experts: int, *, split_threshold: float = 1.0) -> int:
    """Return half of the lightest token that is split: no expert is filled by one token, which other texts use less."""
    return max(1, int(int(counts_V.sum()) * split_threshold) // (2 * num_experts))


def _parts(
    bigrams_P: np.ndarray, most: int, frequent_first_P: np.ndarray
) -> tuple[np.ndarray, list[int], list[list[int]]]:
    """Return one token's part by previous token or -(g + 1), the counts of its parts, and the parts of each group g."""
    too_heavy = np.flatnonzero(bigrams_P > most)
    rest_P = bigrams_P.copy()
    rest_P[too_heavy] = 0
    num_parts = max(1, -(-int(rest_P.sum()) // most))
    part_P = balanced_table(rest_P, num_parts) if rest_P.any() else np.zeros(len(rest_P), dtype=np.int32)
    unseen = frequent_first_P[bigrams_P[frequent_first_P] == 0]
    part_P[unseen] = np.arange(len(unseen)) % num_parts  # the most frequent previous tokens apart from each other
    counts = expert_load(part_P, rest_P, num_parts).tolist()
    groups = []
    for group, previous in enumerate(too_heavy):
        part_P[previous] = -(group + 1)
        shares = _even_shares(int(bigrams_P[previous]), most)
        groups.append([len(counts) + share for share in range(len(shares))])
        counts += shares
    return part_P, counts, groups


def _even_shares(count: int, most: int) -> list[int]:
    num_shares = -(-count // most)
    return [(count + share) // num_shares for share in range(num_shares)]
