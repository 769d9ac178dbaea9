"""MixtureOrder: the shuffled order of a mixture's sequences in constant memory, each part for its epochs."""

from fractions import Fraction

import numpy as np

from data_prep.shards.mixture import scaled_number
from train.data.sample_order import SampleOrder
from train.data.validation_split import Subset
from train.data.window_order import RegionOrder, WindowOrder, Windows, make_order


class MixtureOrder:
    """An epoch has m = epochs * n slots, rounded, for a part of n sequences; the slots of all parts are shuffled.

    If m = n, each sequence of the part comes once per epoch. Otherwise the part has an order of its own, from which
    each epoch draws the next m sequences. Stateless: position i of a run is addresses(i, 1) on any number of ranks.
    """

    def __init__(
        self, parts: list[Subset], epochs: list[Fraction], *, seed: int, part_seeds: list[int], windows: Windows
    ):
        """parts: the sequences of each part to train on. epochs: passes over each part per epoch of the mixture.
        part_seeds: a number per part, which seeds its own order. windows: that are shuffled one after another.
        """
        self._parts = parts
        self._slots = [scaled_number(part.num_sequences, passes) for part, passes in zip(parts, epochs, strict=True)]
        self._slot_starts = np.cumsum([0, *self._slots])
        self._order = make_order(max(self.num_slots, 1), seed=seed, windows=windows)
        # Windows shuffle what regions leave in order.
        region = windows.region if isinstance(self._order, WindowOrder) else 1
        self._own = [
            _own_order(max(part.num_sequences, 1), seed=seed + part_seed, region=region)
            for part, part_seed in zip(parts, part_seeds, strict=True)
        ]

    @property
    def num_slots(self) -> int:
        """Sequences per epoch."""
        return int(self._slot_starts[-1])

    def addresses(self, first: int, count: int) -> np.ndarray:
        """Addresses (part, sequence) of the positions [first, first + count) of the run, int64 [count, 2]."""
        positions = np.arange(first, first + count)
        slots, epochs = self._order.at(positions), positions // self.num_slots
        parts = np.searchsorted(self._slot_starts, slots, side="right") - 1
        sequences = np.empty(count, dtype=np.int64)
        for part in np.unique(parts).tolist():
            mine = parts == part
            sequences[mine] = self._draw(part, epochs[mine], slots[mine] - self._slot_starts[part])
        return np.stack([parts, sequences], axis=1)

    def _draw(self, part: int, epochs: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """The sequences in `slots` 0 to m - 1 of one part."""
        of_subset = slots
        if self._slots[part] != self._parts[part].num_sequences:
            of_subset = self._own[part].at(epochs * self._slots[part] + slots)
        return self._parts[part].sequences(of_subset)


def _own_order(num_sequences: int, *, seed: int, region: int) -> SampleOrder | RegionOrder:
    if region == 1 or num_sequences <= region:
        return SampleOrder(num_sequences, seed=seed)
    return RegionOrder(num_sequences, seed=seed, region=region)
