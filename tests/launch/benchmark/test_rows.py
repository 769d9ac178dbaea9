"""Rows, tables, CSV and figures from the measurements of all ranks."""

import csv

import numpy as np
import pytest

from launch.benchmark.layers.options import ALWAYS, OTHERS
from launch.benchmark.plots import plot_bars, plot_experts, plot_tokens
from launch.benchmark.quantiles import quantiles
from launch.benchmark.report import tables, write_csv
from launch.benchmark.rows import make_rows


def fake_rank(*, slower=1.0, num_experts=4, tokens=256, variants=("dense", "hash")) -> dict:
    """The result of a rank: dense takes 1 + 2 ms, hash 2 + 4 ms, in each of two repetitions."""
    times = {name: [1e-3 * slower * (i + 1)] * 2 for i, name in enumerate(variants)}
    one = {"forward_peak_bytes": 2**20, "peak_bytes": 2**21, "sent_bytes": 2**20, "dropped_share": 0.25}
    return {
        "num_experts": num_experts, "tokens_per_rank": tokens, "bound_bytes": 2**19, "tokens_per_expert": [1, 1, 1, 5],
        "planning_seconds": [1e-3, 1e-3], "matmul_seconds": [5e-4, 5e-4], "matmul_flops": 10**9,
        "fill_seconds": [8e-3, 8e-3],
        "variants": {
            name: one | {"forward_seconds": t, "backward_seconds": [2 * s for s in t], "synchronizes": None}
            for name, t in times.items()
        },
    }  # fmt: skip


def test_the_slowest_rank_counts_and_ratios_are_to_dense():
    dense, hash_row = make_rows([[fake_rank()], [fake_rank(slower=3.0)]])
    assert (dense.total.median, hash_row.total.median) == pytest.approx((9.0, 18.0))
    assert hash_row.ratio.median == pytest.approx(2.0)
    assert hash_row.tokens_per_second == pytest.approx(2 * 256 / 18e-3)
    assert (hash_row.sent, hash_row.sent_bound, hash_row.peak, hash_row.imbalance) == (1.0, 0.5, 2.0, 2.5)
    assert dense.matmul_share == pytest.approx(6 * 0.5 / 9)
    assert (dense.floor, hash_row.floor) == pytest.approx((6 * 0.5 + 8 / 2, 6 * 0.5 + 8))


def test_quantiles_are_median_and_percentiles():
    values = quantiles(np.arange(11.0))
    assert (values.p10, values.median, values.p90) == (1.0, 5.0, 9.0)


def test_tables_csv_and_figures_hold_every_variant(tmp_path):
    names = (*ALWAYS, *OTHERS)
    rows = make_rows([[fake_rank(variants=names), fake_rank(variants=names, num_experts=8, tokens=512)]])
    assert all(name in tables(rows) for name in names)
    write_csv(tmp_path / "rows.csv", rows)
    records = list(csv.DictReader((tmp_path / "rows.csv").open()))
    assert [record["variant"] for record in records] == [*names, *names]
    assert {"total", "total_p10", "total_p90"} <= set(records[0])
    for plot in (plot_bars, plot_experts, plot_tokens):
        plot(rows, tmp_path / "figure.png")
        assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
