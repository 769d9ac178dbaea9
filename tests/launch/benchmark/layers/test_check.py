"""A variant that computes something else is refused before timing."""

from types import SimpleNamespace

import pytest
import torch

from launch.benchmark.layers.check import check_variants
from launch.benchmark.layers.ours import Variant


class Multiply(Variant):
    def __init__(self, factor: float, equals: str | None):
        super().__init__()
        self.weight, self.equals = torch.nn.Parameter(torch.tensor(factor)), equals

    def forward(self, hidden_BSD):
        return hidden_BSD * self.weight


def test_a_variant_that_computes_something_else_is_refused():
    case = SimpleNamespace(hidden_BSD=torch.ones(1, 2, 3), grad_BSD=torch.ones(1, 2, 3), ep_size=1)
    check_variants({"hash": Multiply(2.0, None), "same": Multiply(2.0, "hash")}, case)
    with pytest.raises(RuntimeError, match="wrong differs from hash in its outputs by 5.0e-01"):
        check_variants({"hash": Multiply(2.0, None), "wrong": Multiply(3.0, "hash")}, case)
