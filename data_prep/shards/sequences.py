"""Sequences of equal length cut from token streams: which tokens each one is, and how many are read at once."""

import numpy as np

from data_prep.shards.token_stream import TokenStream


class Sequences:
    """Sequence i of a stream is its tokens [i * S, i * S + S); the sequences of several streams follow one another.

    A stream ends with its last sequence that another token follows: every token but the first is a target once.
    """

    def __init__(self, streams: list[TokenStream], *, context_length: int):
        self.streams = streams
        self.context_length = context_length
        self.sizes = [max(stream.num_tokens - 1, 0) // context_length for stream in streams]
        self.starts = np.cumsum([0, *self.sizes])  # [num_streams + 1]

    @property
    def num_sequences(self) -> int:
        return int(self.starts[-1])

    def read(self, indices: np.ndarray, *, num_following: int = 1) -> np.ndarray:
        """Return sequences by index, each with the tokens after it: int64 [len(indices), S + num_following].

        ValueError for a damaged block, naming its file.
        """
        rows = np.empty((len(indices), self.context_length + num_following), dtype=np.int64)
        streams = np.searchsorted(self.starts, indices, side="right") - 1
        begins = (indices - self.starts[streams]) * self.context_length
        for row, stream, begin in zip(rows, streams.tolist(), begins.tolist(), strict=True):
            self.streams[stream].read_into(row, begin)
        return rows
