"""Sequences of equal length in the token streams of a mixture, read by their addresses (part, sequence).

Part p is the stream number p of the mixture. Arrays of addresses are int64 [..., 2].
"""

import numpy as np

from data_prep.shards.token_stream import TokenStream


class Sequences:
    """Sequence i of a stream is its tokens [i * S, i * S + S).

    The last sequence is the last one that is followed by a token, so every token but the first is a target once.
    """

    def __init__(self, stream: TokenStream, *, context_length: int):
        self.stream, self.context_length = stream, context_length
        self.num_sequences = max(stream.num_tokens - 1, 0) // context_length

    def read(self, sequences: np.ndarray, *, num_following: int = 1) -> np.ndarray:
        """Read sequences of the stream, as read_sequences does."""
        return read_sequences([self], make_addresses(0, sequences), num_following=num_following)

    def will_need(self, sequence: int, length: int) -> None:
        """Let the disk start to read `length` tokens from the first of `sequence` on."""
        self.stream.will_need(sequence * self.context_length, length)

    def read_into(self, out: np.ndarray, sequence: int) -> None:
        """Fill int64 `out` with the tokens from the first of `sequence` on."""
        self.stream.read_into(out, sequence * self.context_length)


def read_sequences(parts: list[Sequences], addresses: np.ndarray, *, num_following: int = 1) -> np.ndarray:
    """Read the sequences at addresses [n, 2], each with the tokens that follow it: int64 [n, S + num_following].

    A damaged block raises ValueError, which names its file.
    """
    tokens = np.empty((len(addresses), parts[0].context_length + num_following), dtype=np.int64)
    for part, sequence in addresses.tolist():  # a disk that has many requests answers several at a time
        parts[part].will_need(sequence, tokens.shape[1])
    for out, (part, sequence) in zip(tokens, addresses.tolist(), strict=True):
        parts[part].read_into(out, sequence)
    return tokens


def make_addresses(part: int, sequences: np.ndarray) -> np.ndarray:
    """Return the addresses int64 [n, 2] of sequences [n] of one part."""
    return np.stack([np.full_like(sequences, part), sequences], axis=-1)
