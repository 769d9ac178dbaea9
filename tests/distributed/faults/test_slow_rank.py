"""The report names a rank that the others wait for."""

import pytest

from tests.distributed.faults.slow_rank_checks import wait_for_rank_1
from tests.distributed.ranks import run_ranks
from train.faults.supervision import describe_slow_rank


@pytest.mark.distributed
def test_a_rank_that_works_longer_waits_less_than_the_others(tmp_path):
    shares = run_ranks(wait_for_rank_1, 2, folder=str(tmp_path))
    assert "rank 1 is slow" in describe_slow_rank(shares)


@pytest.mark.parametrize("shares", [[0.5], [0.4, 0.45], [0.0, 0.1, 0.05]])
def test_ranks_that_wait_alike_are_not_named(shares):
    assert describe_slow_rank(shares) is None


def test_the_slow_rank_among_many_is_named_with_both_shares():
    assert describe_slow_rank([0.5, 0.6, 0.02, 0.55]) == (
        "note: rank 2 is slow: it waits for others 2% of its time, the others 55% of theirs"
    )
