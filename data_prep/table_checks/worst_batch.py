"""The batch that loads one expert most, of all batches that could be drawn, in memory that data sets do not enlarge."""

import numpy as np
from scipy.sparse import csr_array

_LOAD_BITS = 32  # of a cell: expert * 2^32 + load


class LoadHistogram:
    """How many pieces give each expert each load, without load 0.

    An expert with k different loads has had at least 1 + 2 + ... + k pairs. So T (token, choice) pairs on E experts
    make at most sqrt(2 * T * E) entries: 10 MB for 50 million tokens on 4,096 experts, however they are cut.
    """

    def __init__(self):
        self._cells = np.zeros(0, dtype=np.int64)  # in order
        self._num_pieces = np.zeros(0, dtype=np.int64)  # of each cell

    def add(self, pieces_NE: csr_array) -> None:
        """Count pieces, whose entries are loads above 0, each expert of a piece once."""
        cells = (pieces_NE.indices.astype(np.int64) << _LOAD_BITS) + pieces_NE.data
        cells, num_pieces = np.unique(cells, return_counts=True)
        self._cells, place = np.unique(np.concatenate([self._cells, cells]), return_inverse=True)
        added = np.concatenate([self._num_pieces, num_pieces])
        self._num_pieces = np.zeros(len(self._cells), dtype=np.int64)
        np.add.at(self._num_pieces, place, added)

    def worst_load(self, num_pieces: int) -> int:
        """Return the greatest load that `num_pieces` different pieces can give one expert."""
        cells, count = self._cells[::-1], self._num_pieces[::-1]  # an expert's greatest load first
        expert, load = cells >> _LOAD_BITS, cells & (2**_LOAD_BITS - 1)
        first = np.flatnonzero(np.append(True, expert[1:] != expert[:-1]))  # the first entry of each expert
        before = np.cumsum(count) - count  # pieces in the entries before this one
        before -= np.repeat(before[first], np.diff(np.append(first, len(cells))))  # of the same expert
        taken = np.clip(num_pieces - before, 0, count)
        return int(np.add.reduceat(taken * load, first).max())
