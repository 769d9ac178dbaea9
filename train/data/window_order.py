"""WindowOrder: a shuffled order for a corpus larger than memory, in which each byte is read from disk about once.

Regions of consecutive samples are permuted, and then the samples of each window of many regions. So the pages of a
window are read once if memory holds them, and each page of digests serves all sequences of its region.
"""

from dataclasses import dataclass

import numpy as np

from train.data.sample_order import SampleOrder

WINDOW_TOKENS = 2**29  # 1 GiB on disk, or 2 GiB if tokens take four bytes
REGION_TOKENS = 2**21  # 4 MiB, for which a .sum has one page of digests
LANES = 2**10  # 4 per region
_LEAST_SAMPLES_OF_A_LANE = 2**6  # samples of a lane are shuffled with each other; long sequences need no lanes


@dataclass(frozen=True)
class Windows:
    """Sizes in samples. A corpus of at most one window is shuffled as a whole."""

    window: int  # that are shuffled with each other
    region: int  # that stay together when windows are chosen
    lanes: int  # equal shares of a window, from which samples are drawn in turn; at most half of its samples


def windows_of(context_length: int) -> Windows:
    """Return the sizes for sequences of context_length tokens."""
    window = max(WINDOW_TOKENS // context_length, 2)
    lanes = min(LANES, max(window // _LEAST_SAMPLES_OF_A_LANE, 1))
    return Windows(window, region=max(REGION_TOKENS // context_length, 1), lanes=lanes)


def make_order(num_samples: int, *, seed: int, windows: Windows) -> "SampleOrder | WindowOrder":
    """Return the order of a corpus: a permutation of all its samples per epoch, window by window if it is large."""
    if num_samples <= windows.window:
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
    """A permutation of range(num_samples) per epoch, in windows of equal size; see Windows.

    Position i of a window takes a sample from lane i % lanes, a run of whole regions or a part of one. So ranks that
    take fixed places of each global batch have lanes of their own, and need no page that another rank reads, if the
    number of lanes is a multiple of those places. A few samples that do not fit into equal lanes come last.
    Stateless: the sample at a position follows from the seed.
    """

    def __init__(self, num_samples: int, *, seed: int, windows: Windows):
        self.num_samples, self._num_lanes = num_samples, windows.lanes
        self._num_windows = -(-num_samples // windows.window)
        self._lane = num_samples // self._num_windows // windows.lanes  # samples per lane
        self._window = self._lane * windows.lanes
        self._end = self._num_windows * self._window
        self._regions = RegionOrder(num_samples, seed=seed, region=windows.region)
        self._in_lane = SampleOrder(self._lane, seed=seed)
        self._in_rest = SampleOrder(max(num_samples - self._end, 1), seed=seed)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return the samples at any positions of the run, int64 of the same shape."""
        epochs, places = np.divmod(positions, self.num_samples)
        is_rest = places >= self._end
        places[is_rest] = self._end + self._rest_at(epochs[is_rest], places[is_rest] - self._end)
        places[~is_rest] = self._window_at(epochs[~is_rest], places[~is_rest])
        return self._regions.at(epochs * self.num_samples + places)

    def _window_at(self, epochs: np.ndarray, places: np.ndarray) -> np.ndarray:
        turns, lanes = np.divmod(places % self._window, self._num_lanes)
        lanes = places // self._window * self._num_lanes + lanes  # of the epoch
        number = epochs * self._num_windows * self._num_lanes + lanes  # of the run: each lane has an order of its own
        return lanes * self._lane + self._in_lane.at(number * self._lane + turns)

    def _rest_at(self, epochs: np.ndarray, places: np.ndarray) -> np.ndarray:
        return self._in_rest.at(epochs * self._in_rest.num_samples + places)
