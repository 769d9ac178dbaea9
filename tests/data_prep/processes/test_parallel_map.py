"""A function is applied to items in order, on one process, on workers, or on the ranks of several."""

from functools import partial

import pytest

from data_prep.processes import parallel_map as module
from data_prep.processes.mpi_ranks import MpiRanks
from data_prep.processes.parallel_map import parallel_map


def scaled(item, on_read, *, factor):
    on_read(item)
    if item == 13:
        raise ValueError("13 is unlucky")
    return factor * item


@pytest.mark.parametrize("num_workers", [1, 2])
def test_results_have_the_order_of_the_items(monkeypatch, num_workers):
    monkeypatch.setattr(module, "BYTES_PER_WORKER", 1)
    items = [5, 1, 4, 2]
    results = parallel_map(partial(scaled, factor=10), items, items, desc="scale", num_workers=num_workers)
    assert results == [50, 10, 40, 20]
    with pytest.raises(ValueError, match="13 is unlucky"):
        parallel_map(partial(scaled, factor=10), [1, 13], [1, 13], desc="scale", num_workers=num_workers)


def test_ranks_share_the_items():
    shares = []

    class Ranks(MpiRanks):
        def wait(self):
            pass

        def gather(self, value):
            shares.append(value)

    for rank in range(2):
        assert parallel_map(partial(scaled, factor=1), [3, 2, 1], [3, 2, 1], desc="", ranks=Ranks(rank, 2)) == []
    assert shares == [{0: 3}, {1: 2, 2: 1}]
