"""Figures of the benchmark: bars of one case, and curves over the number of experts or tokens."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from data_prep.storage.atomic_file import atomic_file
from launch.benchmark.quantiles import Quantiles
from launch.benchmark.rows import Row

# Okabe and Ito's colours, which colour-blind readers can distinguish; grey dashes for the dense reference.
STYLES = {
    "dense": {"color": "#555555", "linestyle": "--"},
    "hash": {"color": "#D55E00", "linewidth": 2.6, "zorder": 4},
    "deepspeed_dropless": {"color": "#0072B2", "marker": "s"},
    "deepspeed_capacity": {"color": "#56B4E9", "marker": "D"},
    "learned_top1": {"color": "#009E73", "marker": "^"},
    "per_expert_loop": {"color": "#E69F00", "marker": "v"},
    "transformers_eager": {"color": "#CC79A7", "marker": "P"},
    "transformers_grouped_mm": {"color": "#000000", "marker": "X"},
}


def plot_bars(rows: list[Row], path: str | Path) -> None:
    """Forward and backward time of every variant, one panel per ep_size; whiskers are p10..p90 of their sum."""
    panels = {ep_size: [row for row in rows if row.ep_size == ep_size] for ep_size in sorted({r.ep_size for r in rows})}
    figure = _figure(width=8.0, height=1.2 + 0.34 * len(rows) + 0.5 * len(panels))
    # A bar more than twice as long as all others would squeeze them: it is cut off and labelled with its length.
    limit = min(max(row.total.p90 for row in rows), 2 * sorted(row.total.median for row in rows)[-2])
    heights = [len(panel) + 1 for panel in panels.values()]
    grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=heights)
    for axes, (ep_size, panel) in zip(grid[:, 0], panels.items(), strict=True):
        _draw_bars(axes, panel, limit=limit)
        axes.set_title(
            f"{_ranks(ep_size)}: {panel[0].num_experts} experts, {panel[0].tokens_per_rank:,} tokens per rank"
        )
    axes.set_xlabel("milliseconds (label: ratio to the dense feed-forward)")
    axes.set_xlim(0, 1.15 * limit)
    axes.xaxis.set_major_formatter(FuncFormatter(_number))
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    _save(figure, path, grid="x")


def _draw_bars(axes: Axes, rows: list[Row], *, limit: float) -> None:
    place = np.arange(len(rows))[::-1]
    total, forward, backward = (
        np.array([getattr(row, name).median for row in rows]) for name in ("total", "forward", "backward")
    )
    forward = total * forward / (forward + backward)  # medians of parts do not add up to the median of their sum
    whiskers = [total - [row.total.p10 for row in rows], [row.total.p90 for row in rows] - total]
    axes.barh(place, forward, color="#0072B2", label="forward")
    axes.barh(place, total - forward, left=forward, color="#56B4E9", label="backward")
    axes.errorbar(total, place, xerr=whiskers, fmt="none", ecolor="#333333", capsize=3)
    for y, row in zip(place, rows, strict=True):
        label = f"{row.ratio.median:.2f}" + (f", drops {row.dropped:.0%}" if row.dropped else "")
        if row.total.median > limit:
            text = f"{_number(row.total.median, None)} ms: {label} "
            axes.text(1.15 * limit, y, text, va="center", ha="right", bbox={"fc": "white", "ec": "none", "pad": 2})
        else:
            at = (min(row.total.p90, limit), y)
            axes.annotate(label, at, (5, 0), textcoords="offset points", va="center")
    axes.set_yticks(place, [row.variant for row in rows])
    axes.get_yticklabels()[[row.variant for row in rows].index("hash")].set_fontweight("bold")


def plot_experts(rows: list[Row], path: str | Path) -> None:
    """Forward and backward time by number of experts."""
    _plot_curves(
        rows, path, x=lambda row: row.num_experts, y=lambda row: row.total, xlabel="experts",
        ylabel="forward and backward, milliseconds", title=lambda row: f"{row.tokens_per_rank:,} tokens per rank",
    )  # fmt: skip


def plot_tokens(rows: list[Row], path: str | Path) -> None:
    """Tokens per second of all ranks by tokens per rank."""
    _plot_curves(
        rows, path, x=lambda row: row.tokens_per_rank, y=_rates, xlabel="tokens per rank",
        ylabel="tokens per second, forward and backward", title=lambda row: f"{row.num_experts} experts",
    )  # fmt: skip


def _rates(row: Row) -> Quantiles:
    """Tokens per second at the median and percentiles of the time."""
    tokens = 1e3 * row.ep_size * row.tokens_per_rank
    return Quantiles(tokens / row.total.median, tokens / row.total.p90, tokens / row.total.p10)


def _plot_curves(
    rows: list[Row], path: str | Path, *, x: Callable, y: Callable, xlabel: str, ylabel: str, title: Callable
) -> None:
    """One panel per ep_size, one curve per variant with a band of p10..p90, on logarithmic axes."""
    ep_sizes = sorted({row.ep_size for row in rows})
    figure = _figure(width=1.5 + 4.4 * len(ep_sizes), height=5.2)
    panels = figure.subplots(1, len(ep_sizes), sharey=True, squeeze=False)[0]
    handles = {}
    for axes, ep_size in zip(panels, ep_sizes, strict=True):
        of_panel = [row for row in rows if row.ep_size == ep_size]
        for index, variant in enumerate(dict.fromkeys(row.variant for row in of_panel)):
            curve = [row for row in of_panel if row.variant == variant]
            # Slightly apart, so that the whiskers of the variants do not hide each other.
            places = np.array([x(row) for row in curve]) * 1.012 ** (index - 3.5)
            handles[variant] = _draw_curve(axes, places, [y(row) for row in curve], variant)
        axes.set(title=f"{_ranks(ep_size)}, {title(of_panel[0])}", xlabel=xlabel, xscale="log", yscale="log")
        axes.xaxis.set_major_locator(FixedLocator(sorted({x(row) for row in of_panel})))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(_number))
    panels[0].yaxis.set_major_formatter(FuncFormatter(_number))
    panels[0].yaxis.set_minor_formatter(FuncFormatter(_some_minor))
    panels[0].set_ylabel(ylabel)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, frameon=False)
    _save(figure, path, grid="both")


def _draw_curve(axes: Axes, places: np.ndarray, values: list[Quantiles], variant: str):
    """Medians, joined, with whiskers p10..p90; returns the line for the legend."""
    style = {"marker": "o", "markersize": 5, "linewidth": 1.5, **STYLES[variant]}
    (line,) = axes.plot(places, [value.median for value in values], label=variant, **style)
    low, high = [value.p10 for value in values], [value.p90 for value in values]
    axes.vlines(places, low, high, color=style["color"], linewidth=1, alpha=0.6)
    return line


def _number(value: float, _) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def _some_minor(value: float, _) -> str:
    """Labels at 2, 3, 4 and 6 between the powers of ten."""
    mantissa = value / 10 ** np.floor(np.log10(value) + 1e-9)
    return _number(value, _) if round(mantissa) in (2, 3, 4, 6) else ""


def _ranks(ep_size: int) -> str:
    return "1 process" if ep_size == 1 else f"{ep_size} ranks share the experts"


def _figure(*, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: str | Path, *, grid: str) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.grid(axis=grid, which="major", color="#DDDDDD", linewidth=0.6)
    with atomic_file(path) as file:
        figure.savefig(file, dpi=150, format="png")
