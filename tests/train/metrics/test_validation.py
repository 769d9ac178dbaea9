"""Perplexity, even of a loss that is too large for it."""

import math

import pytest

from train.metrics.validation import Validation, perplexity


@pytest.mark.parametrize("loss, expected", [(0.0, 1.0), (math.log(50.0), 50.0), (699.0, math.exp(699.0))])
def test_perplexity_is_the_exponential_of_the_loss(loss, expected):
    assert perplexity(loss) == pytest.approx(expected)


@pytest.mark.parametrize("loss", [700.0, 1e6, math.inf])
def test_a_loss_too_large_has_infinite_perplexity(loss):
    assert perplexity(loss) == math.inf


def test_a_loss_that_is_not_a_number_has_no_perplexity():
    assert not perplexity(math.nan) < math.inf


def test_a_validation_knows_its_perplexity():
    assert Validation(loss=math.log(8.0), num_tokens=4).perplexity == pytest.approx(8.0)
