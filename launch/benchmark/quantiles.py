"""Quantiles: the median and the spread of a repeated measurement."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Quantiles:
    """Median, 10th and 90th percentile over the repetitions."""

    median: float
    p10: float
    p90: float

    def __str__(self) -> str:
        return f"{self.p10:.2f}..{self.p90:.2f}"


def quantiles(values: np.ndarray) -> Quantiles:
    return Quantiles(*(float(np.percentile(values, percent)) for percent in (50, 10, 90)))
