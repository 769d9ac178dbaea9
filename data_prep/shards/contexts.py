"""Read all tokens of a stream, piece by piece, for counting: unlike Sequences, which drop an incomplete last one."""

from collections.abc import Iterator

import numpy as np

from data_prep.shards.token_stream import TokenStream

CHUNK_TOKENS = 2**20  # 8 MiB of int64


def read_contexts(
    stream: TokenStream, *, context_length: int = 0, share: int = 0, num_shares: int = 1
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield pieces (tokens, lead) of the stream; the first `lead` tokens precede the piece and are not part of it.

    With `context_length`, a piece is a run of whole contexts, of which the stream's last may be short, and lead is 0.
    Without it, the whole stream is one context: lead is 1 from the second piece on, so every token has the one before
    it. Pieces are independent: share number `share` of num_shares is a run of pieces, and all shares together are the
    stream.
    """
    step = max(CHUNK_TOKENS // context_length, 1) * context_length if context_length else CHUNK_TOKENS
    starts = range(0, stream.num_tokens, step)
    for start in starts[len(starts) * share // num_shares : len(starts) * (share + 1) // num_shares]:
        lead = 1 if start and not context_length else 0
        length = min(step, stream.num_tokens - start)
        yield stream.read(start - lead, length + lead), lead
