"""The records of metrics.jsonl that make up a run, even if the run was killed, resumed or restarted."""

import json
import math

import pytest

from train.metrics.metrics_file import MetricsFile, read_expert_loads, read_points, read_values
from train.metrics.records import ExpertLoadRecord, TrainRecord, ValidationRecord


def write_lines(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def point(kind, step, loss):
    return {"kind": kind, "step": step, "loss": loss}


def losses(path, record_type):
    return {point.step: point.loss for point in read_points(path, record_type)}


def validation(step, loss):
    return ValidationRecord(step=step, loss=loss, perplexity=1.0, routing_fluctuation=None, num_tokens=8)


@pytest.mark.parametrize("record", [validation(3, 2.5), ExpertLoadRecord(layer=1, observed=[2, 1], predicted=None)])
def test_a_record_is_read_as_it_was_written(tmp_path, record):
    MetricsFile(tmp_path / "m").write(record)
    is_load = isinstance(record, ExpertLoadRecord)
    assert (read_expert_loads(tmp_path / "m") if is_load else read_points(tmp_path / "m", type(record))) == [record]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_null(tmp_path, loss):
    MetricsFile(tmp_path / "m").write(validation(3, loss))
    assert losses(tmp_path / "m", ValidationRecord) == {3: None}
    assert read_values(tmp_path / "m", ValidationRecord, "loss") == []


def test_the_last_record_of_a_repeated_step_counts(tmp_path):
    path = write_lines(tmp_path / "m", point("train", 10, 5.0), point("validation", 10, 4.0), point("train", 10, 6.0))
    assert losses(path, TrainRecord) == {10: 6.0}
    assert losses(path, ValidationRecord) == {10: 4.0}


def test_a_resumed_run_replaces_every_record_beyond_its_checkpoint(tmp_path):
    interrupted = [
        point("train", 10, 5.0),
        point("train", 20, 4.0),
        point("validation", 20, 4.5),
        point("train", 30, 3.0),
    ]
    path = write_lines(tmp_path / "m", *interrupted, point("train", 15, 4.4))
    assert losses(path, TrainRecord) == {10: 5.0, 15: 4.4}
    assert losses(path, ValidationRecord) == {}


def test_a_line_that_was_cut_off_is_skipped(tmp_path):
    path = write_lines(tmp_path / "m", point("train", 10, 5.0))
    path.write_text(path.read_text() + '{"kind": "train", "st\n' + json.dumps(point("train", 20, 4.0)))
    assert losses(path, TrainRecord) == {10: 5.0, 20: 4.0}


def test_expert_loads_come_by_layer_and_the_last_of_a_layer_counts(tmp_path):
    lines = [
        {"kind": "expert_load", "layer": layer, "observed": [tokens]} for layer, tokens in [(3, 1), (1, 2), (3, 4)]
    ]
    path = write_lines(tmp_path / "m", *lines)
    assert [(load.layer, load.observed) for load in read_expert_loads(path)] == [(1, [2]), (3, [4])]
