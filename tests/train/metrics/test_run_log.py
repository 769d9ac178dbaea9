"""What a run reports of itself adds up: loads, loss, speed, and a table whose columns stand under their titles."""

import json
import re
import resource
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.routes import RoutingRecord
from train.config.run_config import RunConfig
from train.metrics import run_log as metrics
from train.metrics.run_log import RunLog, imbalance, rank_load
from train.metrics.validation import Validation

# ---- load ----


def test_imbalance_is_the_largest_load_over_the_mean_in_the_worst_layer():
    assert imbalance(np.array([[2, 2, 2], [1, 2, 6]])) == 2.0  # 6 / 3


@pytest.mark.parametrize("load", [None, np.zeros((0, 4), int), np.zeros((2, 4), int)])
def test_there_is_no_imbalance_without_sparse_layers_or_rows(load):
    assert imbalance(load) is None


def test_a_rank_holds_consecutive_experts():
    load = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert rank_load(load, 2).tolist() == [[3, 7], [11, 15]]
    assert rank_load(load, 1).tolist() == [[10], [26]]
    assert rank_load(load, 4).tolist() == load.tolist()


def test_a_dense_model_has_no_rank_load():
    assert rank_load(np.zeros((0, 4), int), 2).size == 0


# ---- the table on the screen ----

RECORD = {
    "step": 20, "loss": 5.1234, "perplexity": 168.0, "tokens_per_second": 12345.0, "learning_rate": 1e-3,
    "gradient_norm": 1.0, "load_max_over_mean": 1.2, "predicted_load_max_over_mean": 1.1,
    "rank_load_max_over_mean": 1.05, "peak_memory_bytes": 500 * 2**20,
}  # fmt: skip
DENSE = dict.fromkeys(["load_max_over_mean", "predicted_load_max_over_mean", "rank_load_max_over_mean"])


def right_edges(line: str) -> list[int]:
    """Where each column ends; columns are at least two spaces apart."""
    return [match.end() for match in re.finditer(r"\S+( \S+)*", line)]


@pytest.mark.parametrize("changed", [{}, DENSE, {"loss": 10.8249}], ids=["sparse", "dense", "loss above 10"])
def test_columns_stand_under_their_titles(changed):
    assert right_edges(metrics._row({**RECORD, **changed})) == right_edges(metrics._COLUMNS)


@pytest.mark.parametrize("changed", [{}, DENSE, {"gradient_norm": None}], ids=["sparse", "dense", "no norm"])
def test_there_are_as_many_cells_as_titles(changed):
    assert len(right_edges(metrics._row({**RECORD, **changed}))) == len(right_edges(metrics._COLUMNS))


# ---- RunLog in one process, with a clock that the test turns ----


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(metrics, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


@pytest.fixture
def one_process(monkeypatch):
    alone = SimpleNamespace(
        get_rank=lambda: 0,
        get_world_size=lambda: 1,
        get_world_group=lambda: "world",
        all_reduce=lambda tensor, *, group: None,
    )
    monkeypatch.setattr(metrics, "dist", alone)


ENGINE = SimpleNamespace(
    device=torch.device("cpu"),
    get_global_grad_norm=lambda: 0.5,
    monitor=SimpleNamespace(enabled=False),
)


@pytest.fixture
def run_log(tmp_path, one_process, clock):
    def start(*, first_step=0, **fields) -> RunLog:
        # 2 sequences * 8 tokens = 16 tokens per step
        defaults = {"context_length": 8, "global_batch_size": 2, "micro_batch_size": 1, "max_steps": 6, "log_every": 2}
        config = RunConfig("shards", run_dir=str(tmp_path), **{**defaults, **fields})
        predicted = np.array([[1, 1]]) if config.sparse_layers else None
        return RunLog(config, predicted_load=predicted, first_step=first_step)

    return start


SPARSE = {"sparse_layers": [3], "num_experts": 2, "route_table": "table"}


def report(*tokens_per_expert: int) -> dict[int, RoutingRecord]:
    """What the sparse layer of block 3 reports."""
    return {3: RoutingRecord(num_tokens=8, tokens_per_expert=list(tokens_per_expert))}


def lines(tmp_path, kind: str) -> list[dict]:
    records = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    return [record for record in records if record["kind"] == kind]


def take_steps(log: RunLog, clock, first: int, last: int, *, records=None):
    """Steps first..last of one second, with the loss of step s being s."""
    for step in range(first, last + 1):
        clock.now += 1.0
        log.add_micro_batch(torch.tensor(float(step)), records or {})
        log.step_done(ENGINE, step, learning_rate=step / 8)


def test_a_line_is_the_mean_since_the_line_before(run_log, tmp_path, clock):
    take_steps(run_log(max_steps=5), clock, 1, 5)
    reported = [(line["step"], line["loss"], line["tokens"]) for line in lines(tmp_path, "train")]
    assert reported == [(2, 1.5, 32), (4, 3.5, 64), (5, 5.0, 80)]  # the last step is always reported
    assert {line["tokens_per_second"] for line in lines(tmp_path, "train")} == {16.0}
    assert [line["learning_rate"] for line in lines(tmp_path, "train")] == [2 / 8, 4 / 8, 5 / 8]


def test_speed_does_not_count_the_time_of_validation_and_saving(run_log, tmp_path, clock):
    log = run_log()
    take_steps(log, clock, 1, 2)
    log.validated(ENGINE, 2, Validation(loss=1.0, num_tokens=16))
    clock.now += 100.0
    log.saved(tmp_path)
    take_steps(log, clock, 3, 4)
    assert [line["tokens_per_second"] for line in lines(tmp_path, "train")] == [16.0, 16.0]


def test_speed_is_right_where_validation_falls_between_two_lines(run_log, tmp_path, clock):
    log = run_log()
    take_steps(log, clock, 1, 1)
    log.validated(ENGINE, 1, Validation(loss=1.0, num_tokens=16))
    take_steps(log, clock, 2, 2)
    assert [line["tokens_per_second"] for line in lines(tmp_path, "train")] == [16.0]


def test_the_load_of_a_line_is_of_its_steps_and_the_final_load_of_all(run_log, tmp_path, clock):
    log = run_log(**SPARSE, max_steps=4)
    take_steps(log, clock, 1, 2, records=report(6, 2))
    take_steps(log, clock, 3, 4, records=report(4, 4))
    log.close()
    assert [line["load_max_over_mean"] for line in lines(tmp_path, "train")] == [1.5, 1.0]
    assert [line["predicted_load_max_over_mean"] for line in lines(tmp_path, "train")] == [1.0, 1.0]
    assert lines(tmp_path, "expert_load") == [
        {"kind": "expert_load", "layer": 3, "observed": [20, 12], "predicted": [1, 1]}
    ]


def test_validation_is_written_with_its_perplexity(run_log, tmp_path):
    run_log().validated(ENGINE, 4, Validation(loss=0.0, num_tokens=48, routing_fluctuation=0.25))
    [line] = lines(tmp_path, "valid")
    values = {"loss": 0.0, "perplexity": 1.0, "routing_fluctuation": 0.25}
    assert line == {"kind": "valid", "step": 4, **values, "tokens": 48}


def test_a_resumed_run_adds_to_the_lines_of_the_first(run_log, tmp_path, clock):
    take_steps(run_log(), clock, 1, 2)
    take_steps(run_log(first_step=2), clock, 3, 4)
    assert [(line["step"], line["tokens_per_second"]) for line in lines(tmp_path, "train")] == [(2, 16.0), (4, 16.0)]


def test_resuming_a_finished_run_keeps_its_expert_load(run_log, tmp_path, clock):
    log = run_log(**SPARSE, max_steps=2)
    take_steps(log, clock, 1, 2, records=report(6, 2))
    log.close()
    run_log(**SPARSE, max_steps=2, first_step=2).close()
    assert lines(tmp_path, "expert_load")[-1]["observed"] == [12, 4]


def test_a_full_disk_takes_the_log_and_not_the_run(run_log, tmp_path, clock, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = run_log()
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        take_steps(log, clock, 1, 2)
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    printed = capsys.readouterr().out
    assert "metrics of step 2 not written: [Errno 27] File too large" in printed
    assert "log and plots not finished" in printed


def test_a_line_that_was_cut_off_does_not_swallow_the_next(run_log, tmp_path, clock):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "st')
    take_steps(run_log(), clock, 1, 2)
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 2


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_written_as_null(run_log, tmp_path, clock, loss):
    log = run_log()
    log.add_micro_batch(torch.tensor(loss), {})
    clock.now += 1.0
    log.step_done(ENGINE, 2, learning_rate=0.5)
    log.validated(ENGINE, 4, Validation(loss=loss, num_tokens=48))
    written = lines(tmp_path, "train") + lines(tmp_path, "valid")
    assert [(line["loss"], line["perplexity"]) for line in written] == [(None, None)] * 2


# ---- DeepSpeed's monitors ----


@pytest.fixture
def events():
    return []


@pytest.fixture
def monitored_engine(events):
    monitor = SimpleNamespace(enabled=True, write_events=events.extend)
    return SimpleNamespace(**{**vars(ENGINE), "monitor": monitor})


def test_monitors_receive_every_number_of_a_line(run_log, tmp_path, clock, monitored_engine, events):
    log = run_log()
    log.add_micro_batch(torch.tensor(2.0), {})
    clock.now += 1.0
    log.step_done(monitored_engine, 2, learning_rate=0.5)
    [line] = lines(tmp_path, "train")
    numbers = {f"train/{name}": value for name, value in line.items() if isinstance(value, int | float)}
    assert {name: value for name, value, _ in events} == {n: v for n, v in numbers.items() if n != "train/step"}
    assert {step for _, _, step in events} == {2}
    assert numbers["train/learning_rate"] == 0.5


def test_monitors_receive_each_validation(run_log, monitored_engine, events):
    run_log().validated(monitored_engine, 4, Validation(loss=0.0, num_tokens=48))
    assert events == [("valid/loss", 0.0, 4), ("valid/perplexity", 1.0, 4)]
