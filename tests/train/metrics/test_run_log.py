"""The loads, losses and speeds that a run reports are those of its steps, on every output."""

import json
import resource
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.routes import RoutingRecord
from train.config.run_config import RunConfig
from train.metrics import log_window
from train.metrics import run_log as run_log_module
from train.metrics.run_log import RunLog, imbalance
from train.metrics.validation import Validation

# ---- imbalance ----


def test_imbalance_is_the_largest_load_over_the_mean_in_the_worst_layer():
    assert imbalance(np.array([[2, 2, 2], [1, 2, 6]])) == 2.0  # 6 / 3


@pytest.mark.parametrize("load", [None, np.zeros((0, 4), int), np.zeros((2, 4), int), np.array([[1, 2], [0, 0]])])
@pytest.mark.parametrize("ep_size", [None, 2])
def test_there_is_no_imbalance_without_sparse_layers_or_load(load, ep_size):
    assert imbalance(load, ep_size=ep_size) is None


def test_a_rank_holds_consecutive_experts():
    load = np.array([[1, 2, 3, 4]])
    assert imbalance(load, ep_size=2) == 1.4  # {1 + 2, 3 + 4}: 7 / 5
    assert imbalance(load, ep_size=1) == 1.0
    assert imbalance(load, ep_size=4) == imbalance(load) == 1.6  # 4 / 2.5


# ---- RunLog in one process, with a clock that the test sets ----


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(log_window, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


@pytest.fixture
def one_process(monkeypatch):
    alone = SimpleNamespace(
        get_rank=lambda: 0,
        get_world_size=lambda: 1,
        get_world_group=lambda: "world",
        all_reduce=lambda tensor, *, group: None,
    )
    for module in (run_log_module, log_window):
        monkeypatch.setattr(module, "dist", alone)


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


def routing(*tokens_per_expert: int) -> dict[int, RoutingRecord]:
    """The record of the sparse layer in block 3."""
    return {3: RoutingRecord(num_tokens=8, tokens_per_expert=list(tokens_per_expert))}


def lines(tmp_path, kind: str) -> list[dict]:
    records = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    return [record for record in records if record["kind"] == kind]


def take_steps(log: RunLog, clock, first: int, last: int, *, records=None):
    """Take steps first..last, each of one second; the loss of step s is s."""
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


def test_speed_is_right_if_validation_falls_between_two_lines(run_log, tmp_path, clock):
    log = run_log()
    take_steps(log, clock, 1, 1)
    log.validated(ENGINE, 1, Validation(loss=1.0, num_tokens=16))
    take_steps(log, clock, 2, 2)
    assert [line["tokens_per_second"] for line in lines(tmp_path, "train")] == [16.0]


def test_a_line_has_the_load_of_its_steps_and_the_end_that_of_all_steps(run_log, tmp_path, clock):
    log = run_log(**SPARSE, max_steps=4)
    take_steps(log, clock, 1, 2, records=routing(6, 2))
    take_steps(log, clock, 3, 4, records=routing(4, 4))
    log.close()
    assert [line["imbalance"] for line in lines(tmp_path, "train")] == [1.5, 1.0]
    assert [line["predicted_imbalance"] for line in lines(tmp_path, "train")] == [1.0, 1.0]
    assert lines(tmp_path, "expert_load") == [
        {"kind": "expert_load", "layer": 3, "observed": [20, 12], "predicted": [1, 1]}
    ]


def test_validation_is_written_with_its_perplexity(run_log, tmp_path):
    run_log().validated(ENGINE, 4, Validation(loss=0.0, num_tokens=48, routing_fluctuation=0.25))
    [line] = lines(tmp_path, "validation")
    values = {"loss": 0.0, "perplexity": 1.0, "routing_fluctuation": 0.25}
    assert line == {"kind": "validation", "step": 4, **values, "num_tokens": 48}


def test_a_resumed_run_appends_to_the_metrics_of_the_first(run_log, tmp_path, clock):
    take_steps(run_log(), clock, 1, 2)
    take_steps(run_log(first_step=2), clock, 3, 4)
    assert [(line["step"], line["tokens_per_second"]) for line in lines(tmp_path, "train")] == [(2, 16.0), (4, 16.0)]


def test_resuming_a_finished_run_keeps_its_expert_load(run_log, tmp_path, clock):
    log = run_log(**SPARSE, max_steps=2)
    take_steps(log, clock, 1, 2, records=routing(6, 2))
    log.close()
    run_log(**SPARSE, max_steps=2, first_step=2).close()
    assert lines(tmp_path, "expert_load")[-1]["observed"] == [12, 4]


def test_a_full_disk_costs_the_log_and_not_the_run(run_log, tmp_path, clock, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = run_log()
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        take_steps(log, clock, 1, 2)
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    printed = capsys.readouterr().out
    assert "metrics not written: [Errno 27] File too large" in printed
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
    written = lines(tmp_path, "train") + lines(tmp_path, "validation")
    assert [(line["loss"], line["perplexity"]) for line in written] == [(None, None)] * 2


# ---- DeepSpeed's monitors ----


@pytest.fixture
def events():
    return []


@pytest.fixture
def monitored_engine(events):
    monitor = SimpleNamespace(enabled=True, write_events=events.extend)
    return SimpleNamespace(**{**vars(ENGINE), "monitor": monitor})


def test_batch_wait_is_a_share_of_the_time(run_log, tmp_path, clock):
    log = run_log()
    for step in (1, 2):
        clock.now += 4.0
        log.add_micro_batch(torch.tensor(0.0), {})
        log.step_done(ENGINE, step, learning_rate=0.0, seconds_waited=float(step))
    assert lines(tmp_path, "train")[0]["batch_wait_share"] == 3 / 8


def test_a_skipped_step_has_no_part_in_the_loss(run_log, tmp_path, clock):
    log = run_log()
    take_steps(log, clock, 1, 1)
    log.add_micro_batch(torch.tensor(float("nan")), {})
    log.discard(1)
    clock.now += 1.0
    log.step_done(ENGINE, 2, learning_rate=0.0)
    assert lines(tmp_path, "train")[0]["loss"] == 1.0


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
    assert events == [("validation/loss", 0.0, 4), ("validation/perplexity", 1.0, 4)]
