"""Figures of the load of experts: the paper's Figure 4 with numbers, and load imbalance against batch size."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from data_prep.storage.atomic_file import atomic_file
from data_prep.table_checks.held_out_load import BatchLoad
from data_prep.table_checks.table_check import TableCheck

COLOURS = ("#0072b2", "#d55e00")  # told apart by colour-blind readers, and in grey
EVEN = {"color": "black", "linewidth": 0.8, "linestyle": (0, (5, 3))}


def check_figures(check: TableCheck, beside: TableCheck | None) -> dict[str, Figure]:
    """Return the figures by name; the other table, if any, stands on the left as in the paper's Figure 4."""
    checks = [check] if beside is None else [beside, check]
    loads = {each.name: each.load_LE[min(check.layer, len(each.load_LE) - 1)] for each in checks}
    return {
        "load_per_expert": expert_load_figure(loads),
        "imbalance_by_batch": imbalance_figure({each.name: each.batches for each in checks}, ep_size=check.ep_size),
    }


def expert_load_figure(loads: dict[str, np.ndarray]) -> Figure:
    """Draw each table's load per expert, sorted, side by side (Roller et al., 2021, Figure 4); loads are int64 [E]."""
    figure = Figure(figsize=(3.4 * len(loads) + 0.3, 2.8), layout="constrained", dpi=150)
    axes = figure.subplots(1, len(loads), sharey=True, squeeze=False)[0]
    for axis, (name, load_E), colour in zip(axes, loads.items(), COLOURS, strict=False):
        relative_E = np.sort(load_E)[::-1] / load_E.mean()
        axis.bar(np.arange(1, len(relative_E) + 1), relative_E, width=1.0, color=colour, linewidth=0)
        axis.axhline(1, **EVEN, label="perfectly even")
        axis.set_title(f"{name}: max/mean {relative_E[0]:.2f}", fontsize=9)
        axis.set_xlabel("expert, fullest first", fontsize=9)
        axis.set_xlim(0.5, len(relative_E) + 0.5)
        _plain(axis)
    axes[0].set_ylabel("tokens / mean tokens per expert", fontsize=9)
    axes[-1].legend(frameon=False, fontsize=8)
    return figure


def imbalance_figure(loads: dict[str, list[BatchLoad]], *, ep_size: int) -> Figure:
    """Draw max/mean against batch size: the mean of random batches, shaded up to the 99th percentile."""
    figure = Figure(figsize=(5.0, 3.5), layout="constrained", dpi=150)
    axis = figure.subplots()
    sizes = sorted({load.batch_tokens for batches in loads.values() for load in batches})
    for (name, batches), colour in zip(loads.items(), COLOURS, strict=False):
        of_table = [load.batch_tokens for load in batches]
        mean, p99 = [load.mean for load in batches], [load.p99 for load in batches]
        axis.plot(of_table, mean, "o-", color=colour, markersize=3.5, label=f"{name}: experts")
        axis.fill_between(of_table, mean, p99, color=colour, alpha=0.2, linewidth=0)
        if ep_size > 1:
            ranks = [load.rank_mean for load in batches]
            axis.plot(of_table, ranks, "s--", color=colour, markersize=3.5, label=f"{name}: {ep_size} ranks")
    axis.axhline(1, **EVEN, label="perfectly even")
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(FixedLocator(sizes))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:,.0f}"))
    axis.set_xlabel("tokens per batch", fontsize=9)
    axis.set_ylabel("load imbalance, max/mean\n(shade: up to the 99th percentile)", fontsize=9)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    _plain(axis)
    return figure


def write_figure(path: Path, figure: Figure) -> None:
    """Write a PNG atomically, without date and version: equal figures give equal bytes."""
    with atomic_file(path) as file:
        figure.savefig(file, format="png", metadata={"Software": None})


def _plain(axis) -> None:
    axis.set_ylim(bottom=0)
    axis.tick_params(labelsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
