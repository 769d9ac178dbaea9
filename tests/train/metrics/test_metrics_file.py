"""Which lines of metrics.jsonl make up a run that was killed, resumed or started again."""

import json

from train.metrics.metrics_file import read_expert_loads, read_points


def write_lines(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def point(kind, step, loss):
    return {"kind": kind, "step": step, "loss": loss}


def losses(path, kind):
    return {line["step"]: line["loss"] for line in read_points(path, kind=kind)}


def test_the_last_line_of_a_repeated_step_counts(tmp_path):
    path = write_lines(tmp_path / "m", point("train", 10, 5.0), point("valid", 10, 4.0), point("train", 10, 6.0))
    assert losses(path, "train") == {10: 6.0}
    assert losses(path, "valid") == {10: 4.0}


def test_a_resumed_run_replaces_all_that_was_written_beyond_its_checkpoint(tmp_path):
    interrupted = [point("train", 10, 5.0), point("train", 20, 4.0), point("valid", 20, 4.5), point("train", 30, 3.0)]
    path = write_lines(tmp_path / "m", *interrupted, point("train", 15, 4.4))
    assert losses(path, "train") == {10: 5.0, 15: 4.4}
    assert losses(path, "valid") == {}


def test_a_line_that_was_cut_off_is_skipped(tmp_path):
    path = write_lines(tmp_path / "m", point("train", 10, 5.0))
    path.write_text(path.read_text() + '{"kind": "train", "st\n' + json.dumps(point("train", 20, 4.0)))
    assert losses(path, "train") == {10: 5.0, 20: 4.0}


def test_expert_loads_come_by_layer_and_the_last_of_a_layer_counts(tmp_path):
    lines = [{"kind": "expert_load", "layer": layer, "observed": [rows]} for layer, rows in [(3, 1), (1, 2), (3, 4)]]
    path = write_lines(tmp_path / "m", *lines)
    assert [(load["layer"], load["observed"]) for load in read_expert_loads(path)] == [(1, [2]), (3, [4])]
