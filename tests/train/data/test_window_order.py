"""Every epoch is a permutation, and each window, batch and rank reads few places of the corpus."""

import numpy as np
import pytest

from train.data.sample_order import SampleOrder
from train.data.window_order import RegionOrder, WindowOrder, Windows, make_order, windows_of

WINDOWS = Windows(lane=4, lanes=16)  # windows of 64, regions of 32


def epoch(order: WindowOrder | RegionOrder, number: int) -> np.ndarray:
    return order.at(np.arange(number * order.num_samples, (number + 1) * order.num_samples))


@pytest.mark.parametrize("size", [128, 129, 191, 192, 193, 640, 1000])
@pytest.mark.parametrize("number", [0, 1, 7])
def test_every_epoch_is_a_permutation(size, number):
    assert sorted(epoch(WindowOrder(size, seed=3, windows=WINDOWS), number)) == list(range(size))


@pytest.mark.parametrize("windows", [Windows(1, 1), Windows(1, 4), Windows(3, 2), Windows(2, 9)])
def test_every_epoch_is_a_permutation_for_windows_of_any_size(windows):
    for size in range(2 * windows.window, 60):
        assert sorted(epoch(WindowOrder(size, seed=size, windows=windows), 1)) == list(range(size))


@pytest.mark.parametrize("size", [1, 7, 8, 9, 64, 65])
@pytest.mark.parametrize("number", [0, 5])
def test_regions_are_moved_as_wholes(size, number):
    found = epoch(RegionOrder(size, seed=1, region=8), number)
    assert sorted(found) == list(range(size))
    num_jumps = (np.diff(found) % size != 1 % size).sum()
    assert size // 16 <= num_jumps <= size // 8


@pytest.mark.parametrize("size", [1, 64, 127])
def test_a_corpus_of_less_than_two_windows_is_shuffled_as_a_whole(size):
    order = make_order(size, seed=3, windows=WINDOWS)
    assert order.at(np.arange(300)).tolist() == SampleOrder(size, seed=3).samples(0, 300).tolist()
    assert isinstance(make_order(128, seed=3, windows=WINDOWS), WindowOrder)


def test_the_order_never_changes_silently():
    # A changed order would make a resumed run see some samples twice and others never.
    order = WindowOrder(40, seed=5, windows=Windows(lane=2, lanes=5))  # three windows of 10 and a last one of 10
    assert epoch(order, 0).tolist() == [
        12, 15, 16, 19, 20, 13, 14, 17, 18, 21, 22, 25, 26, 28, 31, 23, 24, 27, 29, 30,
        32, 35, 36, 38, 1, 33, 34, 37, 39, 0, 11, 9, 10, 4, 5, 7, 8, 2, 3, 6,
    ]  # fmt: skip
    assert epoch(order, 1).tolist() == [
        11, 13, 14, 16, 19, 10, 12, 15, 17, 18, 20, 22, 24, 35, 36, 21, 23, 25, 34, 37,
        38, 0, 2, 5, 7, 39, 1, 3, 4, 6, 29, 9, 26, 31, 27, 33, 28, 8, 32, 30,
    ]  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 7, 200, 500])
def test_the_order_is_the_same_in_chunks_of_any_size(chunk):
    order = WindowOrder(200, seed=5, windows=WINDOWS)  # 500 positions reach into the third epoch
    chunks = [order.at(np.arange(first, min(first + chunk, 500))) for first in range(0, 500, chunk)]
    assert np.concatenate(chunks).tolist() == order.at(np.arange(500)).tolist()


def test_epochs_and_seeds_have_orders_and_regions_of_their_own():
    orders = [WindowOrder(640, seed=seed, windows=WINDOWS) for seed in (0, 1)]
    firsts = {tuple(sorted(epoch(order, number)[:64])) for order in orders for number in (0, 1, 2)}
    assert len(firsts) == 6


def test_each_lane_is_shuffled_in_its_own_way():
    order = WindowOrder(64 * 100, seed=2, windows=WINDOWS)
    lanes = epoch(order, 0)[: 99 * 64].reshape(99, 4, 16).transpose(0, 2, 1).reshape(-1, 4)  # of all windows
    ways = {tuple(np.argsort(lane).tolist()) for lane in lanes}
    assert len(ways) == 24  # all permutations of 4 samples


def test_a_window_reads_two_regions_that_no_other_window_reads():
    order = WindowOrder(64 * 100, seed=2, windows=WINDOWS)
    windows = epoch(order, 0)[: 99 * 64].reshape(99, 64)
    first = int(RegionOrder(64 * 100, seed=2, region=32).at(np.zeros(1, dtype=np.int64))[0]) % 32
    readers = np.zeros((64 * 100 // 32 + 1, 99), dtype=bool)
    readers[(windows - first) // 32, np.arange(99)[:, None]] = True
    assert (readers.sum(axis=1) <= 1).all()
    assert set(readers.sum(axis=0).tolist()) <= {2, 3}  # a region may lie around the corpus's end
    assert np.median(np.abs(windows[:, 8:] - windows[:, :-8])) > 1000  # of samples of different regions


@pytest.mark.parametrize("num_regions", [1, 2])
def test_eight_samples_in_turn_are_of_one_region(num_regions):
    order = WindowOrder(64 * 100, seed=2, windows=WINDOWS)
    first = int(RegionOrder(64 * 100, seed=2, region=32).at(np.zeros(1, dtype=np.int64))[0]) % 32
    samples = order.at(np.arange(8 * num_regions))
    assert len(set(((samples - first) // 32).tolist())) == num_regions


@pytest.mark.parametrize(("world_size", "micro_batch"), [(4, 4), (2, 2), (8, 2), (1, 16)])
def test_ranks_read_lanes_of_their_own(world_size, micro_batch):
    order = WindowOrder(6400, seed=2, windows=Windows(lane=40, lanes=16))
    positions = np.arange(640)  # the first window
    ranks = positions // micro_batch % world_size
    samples = order.at(positions)
    rank_of = dict(zip(samples.tolist(), ranks.tolist(), strict=True))
    borders = sum(rank_of.get(sample + 1, rank) != rank for sample, rank in rank_of.items())
    assert borders <= 16  # each lane is a run of neighbours, so only ends of lanes meet another rank


def test_a_memory_of_one_window_is_enough_to_read_the_corpus_about_once():
    # The sizes for 1,024 tokens, divided by 8. A page holds two sequences; the second needs a token of the next page.
    windows = Windows(lane=2**8, lanes=2**8)
    order = WindowOrder(5 * windows.window + 1234, seed=0, windows=windows)
    samples = epoch(order, 0)
    pages = np.stack([samples // 2, (samples + 1) // 2], axis=1).ravel()
    reads = np.lexsort([np.arange(len(pages)), pages])  # each page's reads in their order
    is_first = np.diff(pages[reads], prepend=-1) != 0
    is_forgotten = np.diff(reads // 2, prepend=0) > windows.window
    assert (is_first | is_forgotten).sum() <= 1.02 * is_first.sum()


@pytest.mark.parametrize("context_length", [1, 16, 1024, 3000, 2**17, 2**29, 2**31])
def test_windows_of_any_context_length_can_be_shuffled(context_length):
    windows = windows_of(context_length)
    order = make_order(2 * windows.window + 7, seed=0, windows=windows)
    assert len(set(order.at(np.arange(10)).tolist())) == 10


def test_windows_of_1024_tokens_are_a_gibibyte_of_regions_of_four_mebibytes():
    assert windows_of(1024) == Windows(lane=256, lanes=2048)
    assert (windows_of(1024).window, windows_of(1024).region) == (2**19, 2**11)
    assert windows_of(2**17) == Windows(lane=16, lanes=2**8)  # a lane has 16 samples of any length
