"""Every epoch is a permutation of all samples, and a seed always gives the same order."""

import numpy as np
import pytest

from train.data.sample_order import SampleOrder

SIZES = [1, 2, 3, 4, 5, 15, 16, 17, 64, 65, 1000]


def epoch(order: SampleOrder, number: int) -> list[int]:
    return order.samples(number * order.num_samples, order.num_samples).tolist()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("number", [0, 1, 7])
def test_every_epoch_is_a_permutation(size, number):
    assert sorted(epoch(SampleOrder(size, seed=3), number)) == list(range(size))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [epoch(SampleOrder(50, seed=seed), number) for seed in (0, 1, 2) for number in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 9


@pytest.mark.parametrize("chunk", [1, 7, 17, 40])
def test_the_order_is_the_same_in_chunks_of_any_size(chunk):
    order = SampleOrder(17, seed=5)  # 40 positions reach into the third epoch
    chunks = [order.samples(first, min(chunk, 40 - first)) for first in range(0, 40, chunk)]
    assert np.concatenate(chunks).tolist() == order.samples(0, 40).tolist()


@pytest.mark.parametrize(
    "size, seed, epoch_0, epoch_1",
    [
        (4, 0, [1, 2, 0, 3], [3, 2, 0, 1]),
        (5, 0, [0, 2, 3, 4, 1], [0, 2, 4, 3, 1]),
        (5, 1, [1, 2, 0, 4, 3], [1, 0, 3, 2, 4]),
        (10, 1234, [8, 1, 5, 3, 9, 7, 2, 6, 4, 0], [4, 1, 2, 0, 9, 5, 7, 3, 6, 8]),
    ],
)
def test_the_order_never_changes_silently(size, seed, epoch_0, epoch_1):
    # A changed order would make a resumed run see some samples twice and others never.
    order = SampleOrder(size, seed=seed)
    assert (epoch(order, 0), epoch(order, 1)) == (epoch_0, epoch_1)


def test_the_order_looks_shuffled():
    order = np.array(epoch(SampleOrder(1000, seed=0), 0))
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1
    # On average, a random permutation has 1 fixed point and 2 neighbours that stay neighbours.
    assert (order == np.arange(1000)).sum() < 8
    assert (abs(np.diff(order)) == 1).sum() < 12


@pytest.mark.parametrize("size", [0, -1])
def test_an_order_of_nothing_is_refused(size):
    with pytest.raises(ValueError, match=f"num_samples={size}"):
        SampleOrder(size, seed=0)
