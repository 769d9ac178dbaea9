"""Losses of repeated steps are compared, and a kill after which no step is repeated fails."""

from launch.gpu_acceptance.measuring.figures import FAILED, PASSED
from launch.gpu_acceptance.parts.kill_and_resume import figures_of_losses

AFTER = {step: 9 - step / 10 for step in range(1, 51)}


def compare(*, last_step: int, resumed_from: int, error: float = 0.0) -> list[str]:
    """The verdicts on the number of repeated steps and on their losses; the last loss before the kill is wrong."""
    before = {step: AFTER[step] for step in range(1, last_step + 1)}
    before[last_step] += error
    return [figure.verdict for figure in figures_of_losses(before, AFTER, resumed_from=resumed_from)[:2]]


def test_losses_of_repeated_steps_must_be_equal():
    assert compare(last_step=25, resumed_from=20) == [PASSED, PASSED]
    assert compare(last_step=25, resumed_from=20, error=0.1) == [PASSED, FAILED]
    assert compare(last_step=43, resumed_from=40, error=0.1) == [PASSED, FAILED]


def test_a_kill_after_which_no_step_is_repeated_fails():
    assert compare(last_step=40, resumed_from=40) == [FAILED, FAILED]
