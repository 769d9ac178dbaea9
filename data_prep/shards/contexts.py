"""Read a token stream piece by piece without losing sight of which token stands before another."""

from collections.abc import Iterator

import numpy as np

from data_prep.shards.token_stream import TokenStream

CHUNK_TOKENS = 2**20  # 8 MiB of int64


def read_contexts(
    stream: TokenStream, *, context_length: int = 0, share: int = 0, num_shares: int = 1
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (tokens, lead) pieces of the stream; the first `lead` tokens are those before the piece, not part of it.

    With `context_length` a piece is whole contexts (the last one may be cut) and lead is 0. Without it the stream is
    one context: lead is 1 after the first piece, so that every token comes with the one before it. No piece needs
    another one: they can be divided into `num_shares` runs of pieces, and all shares together are the stream.
    """
    step = max(CHUNK_TOKENS // context_length, 1) * context_length if context_length else CHUNK_TOKENS
    starts = range(0, stream.num_tokens, step)
    for start in starts[len(starts) * share // num_shares : len(starts) * (share + 1) // num_shares]:
        lead = 1 if start and not context_length else 0
        length = min(step, stream.num_tokens - start)
        yield stream.read(start - lead, length + lead), lead
