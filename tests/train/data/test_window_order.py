"""Every epoch is a permutation, and each window, batch and rank reads few places of the corpus."""

import numpy as np
import pytest

from train.data.sample_order import SampleOrder
from train.data.window_order import LANES, RegionOrder, WindowOrder, Windows, make_order, windows_of

WINDOWS = Windows(window=64, region=8, lanes=16)
SIZES = [65, 66, 100, 127, 128, 129, 640, 1000]


def epoch(order: WindowOrder | RegionOrder, number: int) -> np.ndarray:
    return order.at(np.arange(number * order.num_samples, (number + 1) * order.num_samples))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("number", [0, 1, 7])
def test_every_epoch_is_a_permutation(size, number):
    assert sorted(epoch(WindowOrder(size, seed=3, windows=WINDOWS), number)) == list(range(size))


@pytest.mark.parametrize("windows", [Windows(2, region=1, lanes=1), Windows(7, region=3, lanes=3), Windows(5, 9, 2)])
def test_every_epoch_is_a_permutation_for_windows_of_any_size(windows):
    for size in range(windows.window + 1, 60):
        assert sorted(epoch(WindowOrder(size, seed=size, windows=windows), 1)) == list(range(size))


@pytest.mark.parametrize("size", [1, 7, 8, 9, 64])
@pytest.mark.parametrize("number", [0, 5])
def test_regions_are_moved_as_wholes(size, number):
    found = epoch(RegionOrder(size, seed=1, region=8), number)
    assert sorted(found) == list(range(size))
    assert (np.diff(found) % size != 1 % size).sum() <= max(size // 8 - 1, 0)


@pytest.mark.parametrize("size", [1, 63, 64])
def test_a_corpus_of_one_window_is_shuffled_as_a_whole(size):
    order = make_order(size, seed=3, windows=WINDOWS)
    assert order.at(np.arange(100)).tolist() == SampleOrder(size, seed=3).samples(0, 100).tolist()
    assert isinstance(make_order(65, seed=3, windows=WINDOWS), WindowOrder)


def test_the_order_never_changes_silently():
    # A changed order would make a resumed run see some samples twice and others never.
    order = WindowOrder(21, seed=5, windows=Windows(10, region=3, lanes=2))  # 3 windows of 6 and a rest of 3
    assert epoch(order, 0).tolist() == [
        5, 13, 4, 14, 3, 12, 17, 20, 16, 18, 15, 19, 2, 8, 1, 7, 0, 6, 11, 10, 9,
    ]  # fmt: skip
    assert epoch(order, 1).tolist() == [
        15, 2, 14, 3, 16, 4, 5, 0, 7, 1, 6, 20, 10, 19, 9, 17, 8, 18, 12, 13, 11,
    ]  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 7, 100, 250])
def test_the_order_is_the_same_in_chunks_of_any_size(chunk):
    order = WindowOrder(100, seed=5, windows=WINDOWS)  # 250 positions reach into the third epoch
    chunks = [order.at(np.arange(first, min(first + chunk, 250))) for first in range(0, 250, chunk)]
    assert np.concatenate(chunks).tolist() == order.at(np.arange(250)).tolist()


def test_epochs_and_seeds_have_orders_and_regions_of_their_own():
    orders = [WindowOrder(640, seed=seed, windows=WINDOWS) for seed in (0, 1)]
    firsts = {tuple(sorted(epoch(order, number)[:64])) for order in orders for number in (0, 1, 2)}
    assert len(firsts) == 6


def test_a_window_reads_a_window_of_regions_and_no_other_reads_them():
    order = WindowOrder(64 * 100, seed=2, windows=WINDOWS)
    of_windows = epoch(order, 0).reshape(100, 64)
    readers = np.zeros((64 * 100 // 8 + 1, 100), dtype=bool)
    first = int(RegionOrder(64 * 100, seed=2, region=8).at(np.zeros(1, dtype=np.int64))[0]) % 8
    readers[(of_windows - first) // 8, np.arange(100)[:, None]] = True
    assert (readers.sum(axis=1) <= 1).all()
    assert set(readers.sum(axis=0).tolist()) <= {64 // 8, 64 // 8 + 1}  # a region may lie around the corpus's end
    apart = np.abs(of_windows[:, 2:] - of_windows[:, :-2])  # two lanes are a region
    assert np.median(apart) > 1000


@pytest.mark.parametrize("batch", [4, 8, 16])
def test_a_batch_reads_a_region_for_every_four_samples(batch):
    # Two lanes are a region here; 4 * batch samples of 1,024 tokens then share batch pages of digests.
    order = WindowOrder(64 * 100, seed=2, windows=Windows(window=64, region=16, lanes=16))
    regions = {sample // 16 for sample in epoch(order, 0)[:batch].tolist()}
    assert len(regions) <= 2 * batch // 4  # a region may begin anywhere, and so lie in two of these


@pytest.mark.parametrize(("world_size", "micro_batch"), [(4, 4), (2, 2), (8, 2), (1, 16)])
def test_ranks_read_lanes_of_their_own(world_size, micro_batch):
    order = WindowOrder(6400, seed=2, windows=Windows(window=640, region=80, lanes=16))
    positions = np.arange(640)  # the first window: 40 samples in each of 16 lanes
    ranks = positions // micro_batch % world_size
    samples = order.at(positions)
    rank_of = dict(zip(samples.tolist(), ranks.tolist(), strict=True))
    borders = sum(rank_of.get(sample, rank) != rank_of.get(sample + 1, rank) for sample, rank in rank_of.items())
    assert borders <= 16  # each lane is a run of neighbours, so only ends of lanes meet another rank


def test_a_real_corpus_is_read_about_once_in_windows_of_memory():
    # A twentieth of the real sizes for 1,024 tokens. A page of 4 KiB holds two sequences and a token of the next.
    windows = Windows(2**19 // 20, 2**11 // 20, LANES // 20)
    order = WindowOrder(5 * windows.window + 1234, seed=0, windows=windows)
    samples = epoch(order, 0)
    pages = np.stack([samples // 2, (samples + 1) // 2], axis=1).ravel()
    reads = np.lexsort([np.arange(len(pages)), pages])  # each page's reads in their order
    is_first = np.diff(pages[reads], prepend=-1) != 0
    is_forgotten = np.diff(reads // 2, prepend=0) > windows.window  # by a memory of one window
    assert (is_first | is_forgotten).sum() <= 1.02 * is_first.sum()


@pytest.mark.parametrize("context_length", [1, 16, 1024, 3000, 2**17, 2**29, 2**31])
def test_windows_have_room_for_their_lanes(context_length):
    windows = windows_of(context_length)
    assert 1 <= windows.lanes <= windows.window // 2 and 1 <= windows.region <= windows.window
    assert windows_of(1024) == Windows(window=2**19, region=2**11, lanes=2**10)
    WindowOrder(windows.window + 1, seed=0, windows=windows).at(np.arange(10))
