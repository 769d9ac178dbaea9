"""Look up the experts of tokens in a route table, for every hash key, as models do, in numpy."""

import numpy as np

from data_prep.counts.hash_keys import positions, previous_tokens, route_keys
from data_prep.tables.frequent_tokens import FrequentTokenSplit
from data_prep.tables.route_table import RouteTable


def apply_table(
    table: RouteTable, layer: int, tokens: np.ndarray, *, context_length: int = 0, future: np.ndarray | None = None
) -> np.ndarray:
    """Return the experts of `tokens` [..., S] under table number `layer`: int32 [..., S, num_choices].

    The last axis is one context, or with `context_length` several, one after the other. Keys next and predicted need
    those tokens as `future`, of the shape of `tokens`.
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
    position = np.broadcast_to(positions(tokens.shape[-1], context_length=context_length), tokens.shape)
    experts = table.tables[layer][keys]
    if table.columns == "rotation":
        experts = np.take_along_axis(experts, position[..., None] % table.rotation_period, axis=-1)
    if table.split is not None:
        previous = previous_tokens(tokens, vocab_size=table.vocab_size, context_length=context_length)
        _overwrite_split_tokens(experts, table.split, tokens, previous, position)
    return experts


def _overwrite_split_tokens(
    experts: np.ndarray, split: FrequentTokenSplit, tokens: np.ndarray, previous: np.ndarray, position: np.ndarray
) -> None:
    """Put the experts of split tokens into `experts` [..., 1]."""
    row = split.split_index[tokens]
    is_split = row >= 0
    experts[is_split, 0] = split.experts(row[is_split], previous[is_split], position[is_split])
