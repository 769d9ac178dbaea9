"""Means and spreads over seeds, differences between runs of one seed, and the verdict on an expected ordering."""

from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

# 97.5% quantiles of Student's t for 1, 2, ... degrees of freedom; above ten, that of ten.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)

APPEARS, REVERSED, WITHIN, EQUAL = "appears", "does not appear", "within the spread", "equal"
UNKNOWN = "not measured"


@dataclass(frozen=True)
class Spread:
    """The mean of a value over seeds, and how much the value varies between them."""

    mean: float
    deviation: float | None  # standard deviation of the sample, divided by num - 1; None for a single seed
    num: int  # of seeds

    @property
    def half_width(self) -> float | None:
        """Half the width of the mean's 95% confidence interval (Student's t)."""
        if self.deviation is None:
            return None
        return _T[min(self.num - 1, len(_T)) - 1] * self.deviation / sqrt(self.num)


@dataclass(frozen=True)
class Ordering:
    """An ordering of two variants that the paper finds."""

    better: str
    worse: str
    difference: Spread | None  # perplexity of `worse` minus that of `better`, seed by seed; None without a common seed

    @property
    def verdict(self) -> str:
        """With several seeds, the ordering is clear if the difference's confidence interval excludes 0."""
        if self.difference is None:
            return UNKNOWN
        mean, half_width = self.difference.mean, self.difference.half_width
        if mean == 0 and not half_width:
            return EQUAL
        if half_width is not None and abs(mean) <= half_width:
            return WITHIN
        seen = APPEARS if mean > 0 else REVERSED
        return seen if half_width is not None else f"{seen} (one seed: the spread is unknown)"


def spread(values: list[float]) -> Spread | None:
    """None without values."""
    if not values:
        return None
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def paired_difference(values: dict[int, float], others: dict[int, float]) -> Spread | None:
    """The spread of values minus others, seed by seed, so that the common effect of a seed cancels out."""
    return spread([values[seed] - others[seed] for seed in sorted(values.keys() & others.keys())])


def orderings(expect: list[tuple[str, str]], perplexities: dict[str, dict[int, float]]) -> list[Ordering]:
    """perplexities: by variant and seed."""
    return [
        Ordering(better, worse, paired_difference(perplexities.get(worse, {}), perplexities.get(better, {})))
        for better, worse in expect
    ]
