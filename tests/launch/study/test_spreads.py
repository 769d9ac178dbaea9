"""Means, spreads and paired differences over seeds, and the verdict on an ordering."""

import pytest

from launch.study.spreads import APPEARS, EQUAL, REVERSED, UNKNOWN, WITHIN, orderings, paired_difference, spread


def test_a_spread_is_the_mean_and_deviation_over_seeds():
    assert (spread([1.0, 2.0, 3.0]).mean, spread([1.0, 2.0, 3.0]).deviation) == (2.0, 1.0)
    assert spread([4.0]).deviation is None and spread([]) is None


def test_the_interval_is_students_t():
    # n = 3: 4.303 * 1 / sqrt(3)
    assert spread([1.0, 2.0, 3.0]).half_width == pytest.approx(2.4843, abs=1e-3)


def test_differences_are_between_equal_seeds():
    assert paired_difference({0: 5.0, 1: 7.0, 2: 9.0}, {1: 3.0, 2: 4.0}).mean == 4.5  # 7 - 3 and 9 - 4
    assert paired_difference({0: 5.0}, {1: 3.0}) is None


@pytest.mark.parametrize(
    "better, worse, verdict",
    [
        ([10, 11, 12], [20, 21.1, 22], APPEARS),
        ([20, 21.1, 22], [10, 11, 12], REVERSED),
        ([10, 11, 12], [12, 10, 14], WITHIN),
        ([10], [12], f"{APPEARS} (one seed: the spread is unknown)"),
        ([10], [], UNKNOWN),
        ([10, 11], [10, 11], EQUAL),
        ([10], [10], EQUAL),
    ],
)
def test_an_ordering_appears_only_beyond_the_spread(better, worse, verdict):
    values = {"a": dict(enumerate(better)), "b": dict(enumerate(worse))}
    assert orderings([("a", "b")], values)[0].verdict == verdict
