"""WindowOrder: a shuffled order for a corpus larger than memory, in which each byte is read from disk about once.

Regions of consecutive samples are permuted, and then the samples of each window of many regions. So the pages of a
window are read once if memory holds them, and each page of digests serves all sequences of its region.
"""

from dataclasses import dataclass

import numpy as np

from train.data.sample_order import SampleOrder

WINDOW_TOKENS = 2**29  # 1 GiB on disk, or 2 GiB if tokens take four bytes
LANE_TOKENS = 2**18
# Eight samples in turn come from one region: they share its one or two pages of digests. Of documents, they share few.
LANES_PER_REGION = 8
_LEAST_LANE = 16  # samples; those of a lane are shuffled with each other


@dataclass(frozen=True)
class Windows:
    """A window is `lanes` lanes of `lane` samples each; a corpus of less than two windows is shuffled as a whole."""

    lane: int
    lanes: int

    @property
    def window(self) -> int:
        """Samples that are shuffled with each other."""
        return self.lanes * self.lane

    @property
    def region(self) -> int:
        """Consecutive samples that stay together when the windows are chosen."""
        return LANES_PER_REGION * self.lane


def windows_of(context_length: int) -> Windows:
    """Return the sizes for sequences of context_length tokens."""
    lane = max(LANE_TOKENS // context_length, _LEAST_LANE)
    return Windows(lane, lanes=max(WINDOW_TOKENS // context_length // lane, LANES_PER_REGION))


def make_order(num_samples: int, *, seed: int, windows: Windows) -> "SampleOrder | WindowOrder":
    """Return the order of a corpus: a permutation of all its samples per epoch, window by window if it is large."""
    if num_samples < 2 * windows.window:
        return SampleOrder(num_samples, seed=seed)
    return WindowOrder(num_samples, seed=seed, windows=windows)


class RegionOrder:
    """A permutation of range(num_samples) per epoch that keeps the order within regions of consecutive samples.

    The borders of regions differ from epoch to epoch.
    """

    def __init__(self, num_samples: int, *, seed: int, region: int):
        self.num_samples, self._region, self._num_regions = num_samples, region, num_samples // region
        self._regions = SampleOrder(max(self._num_regions, 1), seed=seed)
        self._all = SampleOrder(num_samples, seed=seed)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return the samples at any positions of the run, int64 of the same shape."""
        epochs, places = np.divmod(positions, self.num_samples)
        regions, offsets = np.divmod(places, self._region)
        is_whole = regions < self._num_regions  # the samples beyond the last whole region stay last
        regions[is_whole] = self._regions.at((epochs * self._num_regions + regions)[is_whole])
        first = self._all.at(epochs * self.num_samples)  # where the regions of this epoch begin
        return (first + regions * self._region + offsets) % self.num_samples


class WindowOrder:
    """A permutation of range(num_samples) per epoch, in windows; the last one takes the rest, up to twice as many.

    Position i of a window takes a sample from lane i % lanes, an eighth of a region. So ranks that take fixed places of
    each global batch have lanes of their own, and need no page that another rank reads, if the number of lanes is a
    multiple of those places. The last window has no lanes. Stateless: the sample at a position follows from the seed.
    """

    def __init__(self, num_samples: int, *, seed: int, windows: Windows):
        self.num_samples, self._windows = num_samples, windows
        self._num_lanes = (num_samples // windows.window - 1) * windows.lanes  # of an epoch
        self._rest = num_samples - self._num_lanes * windows.lane
        self._regions = RegionOrder(num_samples, seed=seed, region=windows.region)
        self._in_lane = SampleOrder(windows.lane, seed=seed)
        self._in_rest = SampleOrder(self._rest, seed=seed)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return the samples at any positions of the run, int64 of the same shape."""
        epochs, places = np.divmod(positions, self.num_samples)
        first_of_rest = self.num_samples - self._rest
        is_rest = places >= first_of_rest
        in_rest = epochs[is_rest] * self._rest + places[is_rest] - first_of_rest
        places[is_rest] = first_of_rest + self._in_rest.at(in_rest)
        places[~is_rest] = self._in_windows(epochs[~is_rest], places[~is_rest])
        return self._regions.at(epochs * self.num_samples + places)

    def _in_windows(self, epochs: np.ndarray, places: np.ndarray) -> np.ndarray:
        sizes = self._windows
        numbers, offsets = np.divmod(places, sizes.window)
        turns, lanes = np.divmod(offsets, sizes.lanes)
        lanes += numbers * sizes.lanes  # of the epoch
        of_run = epochs * self._num_lanes + lanes  # each lane of the run has an order of its own
        return lanes * sizes.lane + self._in_lane.at(of_run * sizes.lane + turns)
