"""The worst batch is that of the pieces which load one expert most, however they arrive."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from data_prep.table_checks.worst_batch import LoadHistogram


def histogram(pieces_NE, *, num_steps=1):
    found = LoadHistogram()
    for pieces in np.array_split(np.array(pieces_NE), num_steps):
        found.add(csr_array(pieces))
    return found


def test_a_worst_batch_that_a_person_can_check():
    found = histogram([[3, 0, 1], [0, 2, 2], [3, 1, 0], [0, 4, 0], [1, 1, 2]])
    # expert 0: 3 + 3 + 1 + 0 + 0; expert 1: 4 + 2 + 1 + 1 + 0; expert 2: 2 + 2 + 1 + 0 + 0
    assert [found.worst_load(num_pieces) for num_pieces in range(1, 6)] == [4, 6, 7, 8, 8]


@pytest.mark.parametrize("num_steps", [1, 2, 7])
@pytest.mark.parametrize("num_experts", [1, 5, 40])
def test_the_histogram_equals_a_sort(num_experts, num_steps):
    pieces_NE = np.random.Generator(np.random.PCG64(0)).integers(0, 6, (60, num_experts))
    found = histogram(pieces_NE, num_steps=num_steps)
    for num_pieces in (1, 2, 30, 60):
        assert found.worst_load(num_pieces) == np.sort(pieces_NE, axis=0)[-num_pieces:].sum(axis=0).max()


def test_large_loads_stay_exact():
    assert histogram([[2**31 - 1, 0], [2**31 - 1, 5]]).worst_load(2) == 2 * (2**31 - 1)
