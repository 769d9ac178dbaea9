"""Figures of a run from its metrics.jsonl: the loss, the expert load (the paper's Figure 4) and the routing."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from train.metrics.metrics_file import Point, read_expert_loads, read_points, read_values
from train.metrics.records import TrainRecord, ValidationRecord

# Okabe and Ito's colours, which colour-blind readers can distinguish.
BLUE, SKY_BLUE, VERMILION, GREY = "#0072B2", "#56B4E9", "#D55E00", "#555555"
MAX_PANELS = 4
PERPLEXITY_TICKS = [mantissa * 10**power for power in range(7) for mantissa in (1, 1.5, 2, 3, 5, 7)]


def plot_loss(metrics_path: str | Path, output_path: str | Path) -> Path | None:
    """Training and validation loss by step, with perplexity on the right.

    None, and no file, if the run has no training loss.
    """
    train, validation = (_finite(read_points(metrics_path, kind)) for kind in (TrainRecord, ValidationRecord))
    if not train:
        return None
    figure = _figure(width=6.4, height=4.0)
    axes = figure.add_subplot()
    axes.plot(*_steps_and_losses(train), color=BLUE, linewidth=1.4, label="training")
    if validation:
        label = f"validation (final perplexity {_exp(validation[-1].loss):.4g})"
        axes.plot(*_steps_and_losses(validation), color=VERMILION, marker="o", markersize=5, linewidth=1.4, label=label)
    axes.set(title="Loss by optimizer step", xlabel="optimizer step", ylabel="loss (nats per token)")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    _add_perplexity(axes)
    axes.legend(frameon=False)
    return _save(figure, output_path)


def plot_expert_load(metrics_path: str | Path, output_path: str | Path) -> Path | None:
    """Share of tokens per expert, observed and predicted by the table: one panel per layer, for the first four layers.

    None, and no file, if the run has no expert load.
    """
    loads = read_expert_loads(metrics_path)[:MAX_PANELS]
    if not loads:
        return None
    figure = _figure(width=max(6.4, 3.4 * len(loads)), height=3.8)
    panels = figure.subplots(1, len(loads), sharey=True, squeeze=False)[0]
    for axes, load in zip(panels, loads, strict=True):
        handles = _draw_load(axes, load.observed, load.predicted)
        imbalance = max(_shares(load.observed)) * len(load.observed)
        axes.set(title=f"Layer {load.layer}: imbalance {imbalance:.2f}", xlabel="experts, by observed load")
    panels[0].set_ylabel("share of tokens")
    panels[0].yaxis.set_major_formatter(PercentFormatter(xmax=1))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return _save(figure, output_path)


# The panels of plot_routing: record and field, title, whether it is a share.
_ROUTING = (
    (TrainRecord, "dropped_share", "dropped tokens", True),
    (TrainRecord, "routing_entropy", "router entropy (nats)", False),
    (ValidationRecord, "routing_fluctuation", "tokens rerouted between validations", True),
)


def plot_routing(metrics_path: str | Path, output_path: str | Path) -> Path | None:
    """Dropped tokens, entropy and fluctuation of the routing by step: one panel for each that the run measured.

    None, and no file, if the run measured none of them.
    """
    curves = [(panel, read_values(metrics_path, panel[0], panel[1])) for panel in _ROUTING]
    curves = [(panel, points) for panel, points in curves if points]
    if not curves:
        return None
    figure = _figure(width=3.6 * len(curves) + 1, height=3.4)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, ((_, _, title, is_share), points) in zip(panels, curves, strict=True):
        axes.plot(*zip(*points, strict=True), color=BLUE, marker="o" if len(points) < 30 else None, markersize=4)
        axes.set(title=title, xlabel="optimizer step")
        axes.set_xlim(0, 1.05 * points[-1][0])
        axes.set_ylim(0, 1.1 * max(value for _, value in points) or 1)
        if is_share:
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    return _save(figure, output_path)


def _draw_load(axes: Axes, observed: list[int], predicted: list[int] | None) -> list:
    """Bars from the fullest expert to the emptiest, with a dot at each expert's prediction; returns the legend."""
    order = np.argsort(-np.asarray(observed), kind="stable")
    place, is_crowded = np.arange(1, len(order) + 1), len(order) > 32
    even = axes.axhline(1 / len(order), color=GREY, linestyle="--", linewidth=1.2, zorder=3)
    even.set_label(f"even: 1 / {len(order)}")
    bars = axes.bar(place, _shares(observed)[order], color=SKY_BLUE, width=1 if is_crowded else 0.8, label="observed")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0.3, len(order) + 0.7)
    if not predicted or None in predicted or not sum(predicted):
        return [bars, even]
    dots = axes.scatter(place, _shares(predicted)[order], s=10 if is_crowded else 30, color=VERMILION, zorder=4)
    dots.set_label("predicted by the table")
    return [bars, dots, even]


def _shares(counts: list[int]) -> np.ndarray:
    counts = np.asarray(counts, dtype=np.float64)
    return counts / max(counts.sum(), 1)


def _finite(points: list[Point]) -> list[Point]:
    """The points whose loss is finite."""
    return [point for point in points if point.loss is not None]


def _steps_and_losses(points: list[Point]) -> tuple[list[int], list[float]]:
    return [point.step for point in points], [point.loss for point in points]


def _add_perplexity(axes: Axes) -> None:
    """A right axis that shows the same heights as perplexity, exp(loss)."""
    right = axes.secondary_yaxis("right", functions=(_exp, _log))
    right.set_ylabel("perplexity")
    low, high = (_exp(limit) for limit in axes.get_ylim())
    ticks = [tick for tick in PERPLEXITY_TICKS if low <= tick <= high]
    right.yaxis.set_major_locator(FixedLocator(ticks) if len(ticks) > 3 else MaxNLocator(6))
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 100 else f"{value:.3g}"))
    right.yaxis.set_minor_locator(NullLocator())


def _exp(loss):
    return np.exp(np.clip(loss, -50, 50))


def _log(perplexity):
    return np.log(np.clip(perplexity, 1e-20, None))


def _figure(*, width: float, height: float) -> Figure:
    """An empty figure of `width` by `height` inches, without pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, output_path: str | Path) -> Path:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    Path(output_path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output_path, dpi=150)
    return Path(output_path)
