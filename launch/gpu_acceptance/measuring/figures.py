"""Figure: one measured value with its spread, its target and the verdict on it."""

from dataclasses import dataclass

from launch.benchmark.quantiles import Quantiles

PASSED, FAILED, MEASURED = "passed", "failed", "measured"


@dataclass(frozen=True)
class Figure:
    """A value, and the bounds within which it passes."""

    what: str
    value: float | None  # None: could not be measured, which fails unless it is skipped
    unit: str = ""
    p10: float | None = None  # of the repetitions
    p90: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    skipped: str | None = None  # "skipped: REASON" if the target does not apply here
    note: str = ""  # where or why

    @property
    def verdict(self) -> str:
        """passed or failed, the reason if it is skipped, or measured if it has no target."""
        if self.skipped:
            return self.skipped
        if self.at_most is None and self.at_least is None:
            return MEASURED
        # Comparisons with NaN are false, so a loss that is NaN fails.
        is_low = self.at_most is None or (self.value is not None and self.value <= self.at_most)
        is_high = self.at_least is None or (self.value is not None and self.value >= self.at_least)
        return PASSED if is_low and is_high else FAILED

    @property
    def target(self) -> str:
        """The bounds, for a reader."""
        bounds = (("<=", self.at_most), (">=", self.at_least))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)


def with_spread(what: str, quantiles: Quantiles, unit: str = "", **options) -> Figure:
    """The median of repetitions as the value, and their 10th and 90th percentiles as the spread."""
    return Figure(what, quantiles.median, unit, quantiles.p10, quantiles.p90, **options)
