"""The verdict on a figure follows from its bounds, and only a reason keeps it from failing."""

import math

import pytest

from launch.gpu_acceptance.measuring.figures import Figure


@pytest.mark.parametrize(
    ("bounds", "value", "verdict"),
    [
        ({"at_most": 1.15}, 1.15, "passed"),
        ({"at_most": 1.15}, 1.16, "failed"),
        ({"at_least": 0.4}, 0.4, "passed"),
        ({"at_least": 0.4}, 0.39, "failed"),
        ({"at_most": 1.15}, math.nan, "failed"),
        ({"at_least": 0.4}, None, "failed"),
        ({"at_least": 0.4, "skipped": "skipped: needs a GPU"}, None, "skipped: needs a GPU"),
        ({}, 5.0, "measured"),
    ],
)
def test_verdicts(bounds, value, verdict):
    assert Figure("speed", value, **bounds).verdict == verdict
