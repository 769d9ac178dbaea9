"""The benchmark: its errors, its counters, and one run on tiny layers from command to files."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from launch.benchmark.costs import count_traffic, highest_sum, peak_bytes, sent_bytes
from launch.benchmark.layers.check import check_variants
from launch.benchmark.layers.options import ALWAYS, OTHERS, SINGLE_PROCESS, read_options
from launch.benchmark.layers.ours import Variant
from launch.benchmark.layers.tokens import TokenSource
from launch.benchmark.main import main
from launch.benchmark.plots import plot_bars, plot_experts, plot_tokens
from launch.benchmark.quantiles import quantiles
from launch.benchmark.report import tables, write_csv
from launch.benchmark.rows import make_rows
from launch.benchmark.run_on_ranks import run_on_ranks
from launch.benchmark.step import step_config, step_rows

TINY = "--device cpu --hidden_size 8 --tokens_per_rank 256 --num_experts 4 --vocab_size 40 --context_length 32".split()


def test_default_cases_are_one_and_sweeps_vary_one_number():
    assert read_options(TINY).cases == [(4, 256)]
    assert read_options([*TINY, "--sweep", "experts"]).cases == [(16, 256), (32, 256), (64, 256), (128, 256)]
    assert read_options([*TINY, "--sweep", "tokens"]).cases == [(4, 1024), (4, 4096), (4, 8192)]


def test_dense_and_hash_are_always_measured():
    assert read_options([*TINY, "--variants"]).variants == [*ALWAYS]
    assert read_options([*TINY, "--variants", "hash", "learned_top1"]).variants == [*ALWAYS, "learned_top1"]


@pytest.mark.parametrize(
    "flags, named",
    [
        (["--num_experts", "5", "--ep_sizes", "2"], ["5 experts", "ep_size=2"]),
        (["--tokens_per_rank", "100"], ["100 tokens", "context_length=32"]),
        (["--table", "x", "--sweep", "experts"], ["--table", "--sweep experts"]),
        (["--repetitions", "0"], ["repetitions=0"]),
    ],
)
def test_contradicting_options_are_refused_with_both_values(flags, named, capsys):
    assert main([*TINY, *flags]) == 2
    message = capsys.readouterr().err
    assert all(value in message for value in named), message


def test_a_missing_folder_of_tokens_is_refused(tmp_path, capsys):
    assert main([*TINY, "--tokens", str(tmp_path / "missing")]) == 2
    assert "missing" in capsys.readouterr().err


def test_a_recipe_without_a_dense_twin_is_refused():
    with pytest.raises(ValueError, match="placement=insert"):
        step_config(SimpleNamespace(recipe="launch/recipes/paper/b2_hash_1_layer.yaml"))


def test_zipf_ids_are_the_same_at_every_call_and_differ_by_rank():
    source = TokenSource(None, vocab_size=1000, seed=3)
    assert torch.equal(source.draw(4, 16, rank=0), source.draw(4, 16, rank=0))
    assert not torch.equal(source.draw(4, 16, rank=0), source.draw(4, 16, rank=1))


def test_the_table_in_memory_balances_experts_and_ranks():
    source = TokenSource(None, vocab_size=1000, seed=0)
    table = source.table(None, num_experts=4, ep_size=2)
    load_E = np.bincount(table[:, 0], weights=source.counts())
    assert load_E.max() / load_E.mean() < 1.001


def test_peak_is_the_highest_running_sum():
    assert highest_sum([100, 50, -100, 20, -70]) == 150
    assert highest_sum([-100]) == 0


def test_peak_memory_counts_temporaries_and_not_older_tensors():
    before = [torch.ones(1000, 1000)]  # 4 MB

    def run():
        (before[0] + 1).add_(before[0] * 2)  # two tensors of 4 MB, both released
        before.clear()
        return torch.ones(500, 1000)  # 2 MB, after 8 were released

    assert peak_bytes(run, torch.device("cpu")) == pytest.approx(8e6, abs=1000)


def test_sent_bytes_exclude_the_part_that_a_rank_keeps(monkeypatch):
    monkeypatch.setattr("torch.distributed.get_world_size", lambda group: 3)
    monkeypatch.setattr("torch.distributed.get_rank", lambda group: 1)
    tensor = torch.zeros(9, 5)  # 20 bytes per row
    assert sent_bytes(tensor, [4, 3, 2], None) == (4 + 2) * 20
    assert sent_bytes(tensor, None, None) == (3 + 3) * 20


def test_traffic_is_counted_inside_the_block_only():
    original = torch.distributed.all_to_all_single
    with count_traffic():
        assert torch.distributed.all_to_all_single is not original
    assert torch.distributed.all_to_all_single is original


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
    records = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert [record["variant"] for record in records] == [*names, *names]
    assert {"total", "total_p10", "total_p90"} <= set(records[0])
    for plot in (plot_bars, plot_experts, plot_tokens):
        plot(rows, tmp_path / "figure.png")
        assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_step_rows_report_the_waits_of_training():
    models = {"dense": {"step": [0.1], "wait": [0.0]}, "hash": {"step": [0.2], "wait": [0.01]}}
    rank = {"tokens_per_step": 100, "models": models, "loaded": {"dense": None, "hash": 4000.0}}
    dense, hash_row = step_rows([rank, rank])
    assert (hash_row.ratio.median, hash_row.wait_share) == pytest.approx((2.0, 0.05))
    assert dense.tokens_per_second == pytest.approx(1000)
    assert (dense.loaded_per_second, hash_row.loaded_per_second) == (None, 8000)


@pytest.mark.slow
@pytest.mark.distributed
def test_loading_is_at_least_20_times_as_fast_as_training(tiny_data, tmp_path, capsys):
    flags = ["--step", "--tokens", str(tiny_data.train), "--repetitions", "3", "--warmup", "1"]
    assert main([*flags, "--device", "cpu", "--output", str(tmp_path)]) == 0
    times = [
        float(line.split()[-1]) for line in capsys.readouterr().out.splitlines() if line.startswith(("dense ", "hash "))
    ]
    assert len(times) == 2 and min(times) >= 20


def fail_on_one(*, rank: int):
    if rank == 1:
        raise ValueError("rank 1 fails")
    torch.distributed.barrier()


@pytest.mark.distributed
def test_a_failing_rank_ends_the_others_and_its_output_is_quoted():
    with pytest.raises(RuntimeError, match="rank 1 fails"):
        run_on_ranks(fail_on_one, 2, device="cpu", threads=1)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The CSV of one run of the command over all variants, with 1 and 2 ranks."""
    folder = tmp_path_factory.mktemp("benchmark")
    flags = ["--ep_sizes", "1", "2", "--repetitions", "2", "--warmup", "1", "--output", str(folder)]
    assert main([*TINY, *flags]) == 0
    assert {path.name for path in folder.iterdir()} == {"layers.csv", "layers.png", "layers.txt"}
    return list(csv.DictReader((folder / "layers.csv").read_text().splitlines()))


@pytest.mark.distributed
def test_every_variant_is_measured_with_the_ranks_it_supports(records):
    measured = {(int(record["ep_size"]), record["variant"]) for record in records}
    assert {name for ep_size, name in measured if ep_size == 1} == {*ALWAYS, *OTHERS}
    assert {name for ep_size, name in measured if ep_size == 2} == {*ALWAYS, *OTHERS} - {*SINGLE_PROCESS}


@pytest.mark.distributed
def test_the_hash_layer_sends_no_more_bytes_than_its_routes_need(records):
    sent = {r["variant"]: (float(r["sent"]), float(r["sent_bound"])) for r in records if r["ep_size"] == "2"}
    assert sent["hash"][0] == sent["hash"][1] > 0
    assert sent["deepspeed_dropless"][0] > sent["deepspeed_dropless"][1]
    assert sent["dense"] == (0, 0)


@pytest.mark.distributed
def test_only_a_capacity_drops_tokens(records):
    dropped = {record["variant"]: float(record["dropped"]) for record in records}
    assert dropped.pop("deepspeed_capacity") > 0
    assert set(dropped.values()) == {0}
