"""The verdict on a part follows from its figures and from how it ended."""

import pytest

from launch.gpu_acceptance.measuring.figures import Figure
from launch.gpu_acceptance.results import PartResult, result_as_json

GOOD, BAD = Figure("good", 0, at_most=0), Figure("bad", 1, at_most=0)
SKIPPED, MEASURED = Figure("skipped", None, at_most=0, skipped="skipped: needs a GPU"), Figure("measured", 1)


@pytest.mark.parametrize(
    ("figures", "error", "verdict"),
    [
        ([GOOD, SKIPPED, MEASURED], None, "passed"),
        ([GOOD, BAD], None, "failed"),
        ([GOOD], "exit status 1", "failed"),
        ([SKIPPED, MEASURED], None, "skipped: needs a GPU"),
        ([MEASURED], None, "measured"),
    ],
)
def test_verdicts(figures, error, verdict):
    assert PartResult("part", 1.0, figures, error).verdict == verdict


def test_values_that_are_not_finite_are_null_in_json():
    (figure,) = result_as_json(PartResult("part", 1.0, [Figure("loss", float("nan"), at_most=1)]))["figures"]
    assert (figure["value"], figure["verdict"]) == (None, "failed")
