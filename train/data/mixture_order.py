"""MixtureOrder: the shuffled order of a mixture's sequences, each part as often as its weight says, without memory."""

from fractions import Fraction

import numpy as np

from data_prep.shards.mixture import scaled_number
from train.data.sample_order import SampleOrder


class MixtureOrder:
    """Part p of n sequences fills m = weight * n slots, rounded, of an epoch; the slots are shuffled.

    Where m = n each sequence comes once per epoch; otherwise the part goes through an order of its own, from which
    each epoch takes the next m draws. Stateless: position i of a run is samples(i, 1), whatever the number of ranks.
    """

    def __init__(self, sizes: list[int], weights: list[Fraction], *, seed: int, part_seeds: list[int]):
        """sizes: sequences of each part. part_seeds: one number per part, which its own order depends on."""
        self._sizes = sizes
        self._slots = [scaled_number(size, weight) for size, weight in zip(sizes, weights, strict=True)]
        self._slot_starts = np.cumsum([0, *self._slots])
        self._starts = np.cumsum([0, *sizes])
        self._own = [SampleOrder(max(n, 1), seed=seed + part) for n, part in zip(sizes, part_seeds, strict=True)]
        self._order = SampleOrder(max(self.num_slots, 1), seed=seed)

    @property
    def num_slots(self) -> int:
        """Sequences per epoch."""
        return int(self._slot_starts[-1])

    def samples(self, first: int, count: int) -> np.ndarray:
        """Sequence indices of the positions [first, first + count) of the run, int64 [count], across epochs.

        Part p's sequences are numbered behind those of the parts before it.
        """
        slots, epochs = self._order.samples(first, count), np.arange(first, first + count) // self.num_slots
        parts = np.searchsorted(self._slot_starts, slots, side="right") - 1
        samples = np.empty(count, dtype=np.int64)
        for part in np.unique(parts).tolist():
            mine = parts == part
            samples[mine] = self._starts[part] + self._draw(part, epochs[mine], slots[mine] - self._slot_starts[part])
        return samples

    def _draw(self, part: int, epochs: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """The sequences of one part in `slots` of its own, 0 to m - 1."""
        if self._slots[part] == self._sizes[part]:
            return slots
        return self._own[part].at(epochs * self._slots[part] + slots)
