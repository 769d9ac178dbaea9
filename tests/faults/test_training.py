"""launch/train.py under faults: a run that is killed, stopped or damaged ends in time, says why, and resumes."""

import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.faults.two_ranks import Run, events, losses
from tests.tiny_run import write_tiny_recipe
from train.config.run_paths import completed_checkpoints, step_of
from train.processes.exit_codes import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_HANG,
    EXIT_LOST_RANK,
    EXIT_NOT_SAVED,
    EXIT_STOPPED,
)

NUM_STEPS = 80
pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    return write_tiny_recipe(folder, max_steps=NUM_STEPS, save_every=20, eval_every=0, keep_last=3, eval_sequences=4)


@pytest.fixture(scope="module")
def untouched(recipe) -> list[float]:
    run = Run(recipe, recipe.parent / "untouched")
    assert run.wait() == [EXIT_DONE, EXIT_DONE], run.output
    assert [step_of(path) for path in completed_checkpoints(run.run_dir / "checkpoints")] == [80, 60, 40]
    return losses(run.run_dir)


def test_a_run_that_is_killed_stopped_and_damaged_ends_as_an_untouched_run(recipe, untouched, tmp_path):
    run = Run(recipe, tmp_path / "run")
    run.wait_for_step(30)
    run.ranks[1].kill()
    killed = time.monotonic()
    assert run.wait() == [EXIT_LOST_RANK, -signal.SIGKILL], run.output
    assert time.monotonic() - killed < 4  # 1.3 on an idle machine
    assert events(run.run_dir)[-1]["what"] == "lost rank" and events(run.run_dir)[-1]["last_good_step"] == 20

    run = Run(recipe, run.run_dir)
    run.wait_for_step(50)
    run.ranks[1].send_signal(signal.SIGTERM)  # to one rank; both must save the same step
    assert run.wait() == [EXIT_STOPPED, EXIT_STOPPED], run.output
    newest = completed_checkpoints(run.run_dir / "checkpoints")[0]
    assert step_of(newest) >= 50 and "--resume auto" in run.output[0]

    weights = newest / "model-shared.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    run = Run(recipe, run.run_dir)
    assert run.wait() == [EXIT_DONE, EXIT_DONE], run.output
    assert f"{weights} is damaged" in run.output[0] and "resuming from step 40" in run.output[0]
    assert events(run.run_dir)[-1]["what"] == "damaged checkpoint"
    assert losses(run.run_dir) == untouched


def test_a_stopped_rank_is_named_by_the_other(recipe, tmp_path):
    run = Run(recipe, tmp_path / "run", "--hang_timeout_seconds", "4")
    run.wait_for_step(25)  # heartbeats are half a second old
    run.ranks[0].send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    assert run.ranks[1].wait(timeout=20) == EXIT_HANG
    assert time.monotonic() - stopped < 4 + 2
    run.ranks[0].kill()
    run.wait()
    assert "silent: rank 0" in run.output[1] and "train/loop.py" in run.output[1]
    assert events(run.run_dir)[-1]["what"] == "hang"


def test_a_token_shard_that_is_damaged_while_it_is_read_ends_the_run_with_its_name(recipe, tmp_path):
    data = shutil.copytree(recipe.parent / "data" / "train", tmp_path / "train")
    shard = next(data.glob("*.bin"))
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    run = Run(recipe, tmp_path / "run", "--train_data", str(data))
    assert EXIT_BAD_INPUT in run.wait(), run.output
    assert any(str(shard) in output for output in run.output)
    assert "bad input" in {event["what"] for event in events(run.run_dir)}


def test_a_stop_file_ends_a_run_at_a_checkpoint_and_is_removed(recipe, tmp_path):
    run = Run(recipe, tmp_path / "run")
    run.wait_for_step(3)
    (run.run_dir / "STOP").touch()
    assert run.wait() == [EXIT_STOPPED, EXIT_STOPPED], run.output
    assert len(completed_checkpoints(run.run_dir / "checkpoints")) == 1
    assert not (run.run_dir / "STOP").exists()


@pytest.mark.parametrize("arguments", [[], ["--async_save"]], ids=["waiting", "in the background"])
def test_a_run_that_cannot_save_keeps_training_and_reports_it_at_the_end(recipe, untouched, tmp_path, arguments):
    run = Run(recipe, tmp_path / "run", *arguments, file_size=60_000)  # of rank 0: enough for its log
    assert run.wait() == [EXIT_NOT_SAVED, EXIT_NOT_SAVED], run.output
    assert {event["what"] for event in events(run.run_dir)} == {"checkpoint failed"}
    assert len(events(run.run_dir)) == NUM_STEPS / 20 and "not saved" in run.output[0]
    assert losses(run.run_dir) == untouched
    assert list((run.run_dir / "checkpoints").iterdir()) == []


def test_a_checkpoint_saved_in_the_background_has_the_same_bytes(recipe, untouched, tmp_path):
    run = Run(recipe, tmp_path / "run", "--async_save")
    assert run.wait() == [EXIT_DONE, EXIT_DONE], run.output
    assert losses(run.run_dir) == untouched
    ours, theirs = (
        completed_checkpoints(folder / "checkpoints") for folder in (run.run_dir, recipe.parent / "untouched")
    )
    assert [folder.name for folder in ours] == [folder.name for folder in theirs]
    for folder, other in zip(ours, theirs, strict=True):
        names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        assert names == {path.relative_to(other) for path in other.rglob("*") if path.is_file()}
        for name in names:
            assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def test_a_stop_file_before_the_first_step_ends_the_run_without_a_checkpoint(recipe, tmp_path):
    run = Run(recipe, tmp_path / "run")
    run.wait_for_file("run.yaml")
    (run.run_dir / "STOP").touch()
    assert run.wait() == [EXIT_STOPPED, EXIT_STOPPED], run.output
    assert "stopped before step 0" in run.output[0] and not (run.run_dir / "checkpoints").exists()
