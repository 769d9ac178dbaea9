"""The figure of a study: the perplexity of every seed by variant, and validation by step."""

from pathlib import Path
from statistics import fmean

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from data_prep.storage.atomic_file import atomic_file
from launch.study.results import RunResult
from train.metrics.plots import GREY, VERMILION

MARK = "†"
MARK_MEANING = "not causal: routes depend on the tokens to be predicted; not comparable with the others"

_NEAR = 1.4  # a variant whose perplexity is this many times above or below the middle one is named at the edge
_START = 1.5  # curves are drawn below this multiple of the worst final perplexity


def plot_study(results: list[RunResult], path: str | Path, *, baseline: str) -> None:
    """One row of points per variant, the best on top, and the curve of each variant, the mean of its seeds."""
    by_variant: dict[str, list[RunResult]] = {}
    for result in results:
        by_variant.setdefault(result.variant, []).append(result)
    rows = sorted(by_variant.values(), key=_mean)
    figure = Figure(figsize=(11, max(4.2, 1.6 + 0.3 * len(rows))), layout="constrained")
    FigureCanvasAgg(figure)
    points, curves = figure.subplots(1, 2)
    _draw_points(points, rows, baseline=baseline)
    _draw_curves(curves, rows, baseline=baseline)
    for axes in (points, curves):
        axes.grid(axis="both", color="#DDDDDD", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    with atomic_file(path) as file:
        figure.savefig(file, dpi=150, format="png")


def marked(result: RunResult) -> str:
    """The variant's name, marked if its perplexity is not comparable with the others."""
    return result.variant if result.has_causal_routes else f"{result.variant} {MARK}"


def near_middle(rows: list[list[RunResult]]) -> list[list[RunResult]]:
    """The variants near the middle one: an oracle far below the others would squeeze them into one line."""
    middle = _mean(rows[len(rows) // 2])
    return [runs for runs in rows if middle / _NEAR <= _mean(runs) <= middle * _NEAR]


def mean_curve(runs: list[RunResult]) -> tuple[list[int], list[float]]:
    """The steps at which every seed was validated, and the mean perplexity at each."""
    curves = [dict(run.curve) for run in runs]
    steps = [step for step in curves[0] if all(step in curve for curve in curves)]
    return steps, [fmean(curve[step] for curve in curves) for step in steps]


def _draw_points(axes: Axes, rows: list[list[RunResult]], *, baseline: str) -> None:
    """A point per seed, a bar per mean, and a dashed line through the baseline's mean."""
    shown = [run.perplexity for runs in near_middle(rows) for run in runs]
    margin = 0.05 * (max(shown) - min(shown)) or 0.01 * max(shown)
    low, high = min(shown) - margin, max(shown) + margin
    for place, runs in enumerate(rows):
        if runs[0].variant == baseline:
            axes.axvline(_mean(runs), color=GREY, linestyle="--", linewidth=1, zorder=1)
        if not low <= _mean(runs) <= high:
            _name_at_edge(axes, place, runs, is_left=_mean(runs) < low)
            continue
        style = {"s": 30, "color": _colour(place, rows), "linewidths": 0, "zorder": 3}
        axes.scatter([run.perplexity for run in runs], [place] * len(runs), **style)
        axes.plot([_mean(runs)] * 2, [place - 0.3, place + 0.3], color=VERMILION, linewidth=2)
    axes.set_xlim(low, high)
    axes.set_yticks(range(len(rows)), [marked(runs[0]) for runs in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the best on top
    axes.xaxis.set_major_locator(MaxNLocator(6))
    fewest, most = min(map(len, rows)), max(map(len, rows))
    seeds = f"{most} per variant" if fewest == most else f"{fewest} to {most} per variant"
    axes.set(title=f"A point per seed ({seeds}), a bar at the mean", xlabel="validation perplexity")
    if not all(runs[0].has_causal_routes for runs in rows):
        axes.set_xlabel(f"validation perplexity\n{MARK} {MARK_MEANING}")


def _name_at_edge(axes: Axes, place: int, runs: list[RunResult], *, is_left: bool) -> None:
    text = f"← {_mean(runs):.4g}" if is_left else f"{_mean(runs):.4g} →"
    edge = {"x": 0.01, "ha": "left"} if is_left else {"x": 0.99, "ha": "right"}
    axes.text(y=place, s=text, va="center", transform=axes.get_yaxis_transform(), **edge)


def _draw_curves(axes: Axes, rows: list[list[RunResult]], *, baseline: str) -> None:
    """Colours run from the best variant to the worst, as in the other panel; the baseline's curve is dashed."""
    for place, runs in enumerate(rows):
        style = {"color": _colour(place, rows), "linewidth": 1.4}
        if runs[0].variant == baseline:
            style = {"color": GREY, "linestyle": "--", "linewidth": 2, "zorder": 3}
        axes.plot(*mean_curve(runs), marker="o", markersize=3, label=marked(runs[0]), **style)
    ends = [_mean(runs) for runs in near_middle(rows)]
    axes.set(title="Mean over seeds, by step", xlabel="optimizer step", ylabel="validation perplexity", yscale="log")
    axes.set_ylim(0.97 * min(ends), _START * max(ends))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(7))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small")


def _colour(place: int, rows: list[list[RunResult]]) -> tuple:
    return colormaps["viridis"](0.92 * place / max(len(rows) - 1, 1))


def _mean(runs: list[RunResult]) -> float:
    return fmean(run.perplexity for run in runs)
