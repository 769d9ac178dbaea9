"""SampleOrder: a shuffled order in constant memory, with each sample exactly once per epoch."""

import numpy as np

from data_prep.counts.hash_keys import mix64

_ROUNDS = 6
_MASK = np.uint64(0xFFFFFFFFFFFFFFFF)


class SampleOrder:
    """A permutation of range(num_samples) per epoch: a Feistel network with cycle walking.

    Stateless: position n of a run is samples(n, 1) on any number of ranks, so a run resumes from one integer.
    """

    def __init__(self, num_samples: int, *, seed: int):
        if num_samples < 1:
            raise ValueError(f"num_samples={num_samples} must be at least 1")
        self.num_samples = num_samples
        self.seed = seed
        bits = max(int(num_samples - 1).bit_length(), 2)
        self._half_bits = np.uint64((bits + 1) // 2)  # the domain is 4 ** half_bits, at most 4 times too large
        self._half_mask = np.uint64((1 << int(self._half_bits)) - 1)

    def samples(self, first: int, count: int) -> np.ndarray:
        """Return the samples at the positions [first, first + count) of the run, int64 [count], across epochs."""
        return self.at(np.arange(first, first + count))

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return the samples at any positions of the run, int64 of the same shape."""
        epochs, values = np.divmod(positions.astype(np.uint64), np.uint64(self.num_samples))
        values = self._encrypt(values, epochs)
        while (outside := values >= self.num_samples).any():
            values[outside] = self._encrypt(values[outside], epochs[outside])
        return values.astype(np.int64)

    def _encrypt(self, values: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        left, right = values >> self._half_bits, values & self._half_mask
        for number in range(_ROUNDS):
            left, right = right, left ^ (self._round(right, epochs, number) & self._half_mask)
        return (left << self._half_bits) | right

    def _round(self, half: np.ndarray, epochs: np.ndarray, number: int) -> np.ndarray:
        salt = np.uint64((self.seed * 0x9E3779B97F4A7C15 + number * 0xD1B54A32D192ED03) & int(_MASK))
        return mix64(mix64(half ^ salt) + epochs)
