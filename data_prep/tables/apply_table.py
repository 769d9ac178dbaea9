"""Look up the experts of tokens in a route table, for every kind of key: what models do, in numpy."""

import numpy as np

from data_prep.counts.hash_keys import positions, previous_tokens, route_keys
from data_prep.tables.route_table import HeavySplit, RouteTable


def apply_table(
    table: RouteTable, layer: int, tokens: np.ndarray, *, context_length: int = 0, future: np.ndarray | None = None
) -> np.ndarray:
    """Return the experts of `tokens` [..., S] under table number `layer`: int32 [..., S, num_hashes or top_k].

    The last axis is a context, or with `context_length` several of them one after the other. Keys "next" and
    "predicted" need those tokens as `future`, of the shape of `tokens`.
    """
    keys = route_keys(
        tokens,
        hash_key=table.hash_key,
        vocab_size=table.vocab_size,
        num_buckets=table.num_buckets,
        context_length=context_length,
        future=future,
    )
    num_keys = table.tables.shape[1]
    if keys.size and not 0 <= keys.min() <= keys.max() < num_keys:
        raise ValueError(
            f"{table.hash_key} keys {keys.min()}..{keys.max()} are not within the table's 0..{num_keys - 1}"
        )
    experts = _look_up(table.tables[layer], keys, rotation_period=table.rotation_period, context_length=context_length)
    if table.split is not None:
        _overwrite_heavy(experts, table.split, tokens, context_length=context_length)
    return experts


def _look_up(table: np.ndarray, keys: np.ndarray, *, rotation_period: int, context_length: int) -> np.ndarray:
    if rotation_period == 1:
        return table[keys]
    turn = positions(keys.shape[-1], context_length=context_length) % rotation_period
    return table[keys, turn][..., None]


def _overwrite_heavy(experts: np.ndarray, split: HeavySplit, tokens: np.ndarray, *, context_length: int) -> None:
    """Put the experts of split tokens, which depend on the previous token or the position, into `experts` [..., 1]."""
    row = split.split_index[tokens]
    heavy = row >= 0
    previous = previous_tokens(tokens, vocab_size=len(split.split_index), context_length=context_length)
    found = split.split_table[row[heavy], previous[heavy]]
    by_position = found < 0
    if by_position.any():
        position = np.broadcast_to(positions(tokens.shape[-1], context_length=context_length), tokens.shape)[heavy]
        turn = position[by_position] % split.position_table.shape[1]
        found[by_position] = split.position_table[-found[by_position] - 1, turn]
    experts[heavy, 0] = found
