"""Whole training steps: the recipes that can be timed, and the waits of training."""

from types import SimpleNamespace

import pytest

from launch.benchmark.main import main
from launch.benchmark.step import step_config, step_rows


def test_a_recipe_without_a_dense_twin_is_refused():
    with pytest.raises(ValueError, match="placement=insert"):
        step_config(SimpleNamespace(recipe="launch/recipes/paper/b2_hash_1_layer.yaml"))


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
