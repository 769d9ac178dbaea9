"""launch/train.py under faults: killed, asked to stop, stopped, damaged; it ends in time, says why, and goes on."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.tiny_run import make_tiny_data, tiny_run_fields
from train.commit import completed_checkpoints, step_of
from train.exit_codes import EXIT_DONE, EXIT_HANG, EXIT_LOST_RANK, EXIT_NOT_SAVED, EXIT_STOPPED
from train.ranks import free_port
from train.read_metrics import read_points

ROOT = Path(__file__).resolve().parents[2]
NUM_STEPS = 120
pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    fields = tiny_run_fields(
        make_tiny_data(folder / "data"), ep_size=2, steps=NUM_STEPS, save_every=20, eval_every=0, log_every=1,
        dropout=0.1, keep_last=3, eval_sequences=4,
    )  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(fields))
    return folder / "recipe.yaml"


class Run:
    """Two ranks of a run, started as a launcher would; file_size: what the files of rank 0 may grow to."""

    def __init__(self, recipe: Path, run_dir: Path, *arguments, file_size: int = resource.RLIM_INFINITY):
        self.run_dir = run_dir
        port = str(free_port())
        environment = {
            **os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        command = [sys.executable, "launch/train.py", "--config", str(recipe), "--run_dir", str(run_dir), *arguments]
        self.ranks = [
            subprocess.Popen(
                command, cwd=ROOT, env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)),
            )
            for rank, limit in enumerate([file_size, resource.RLIM_INFINITY])
        ]  # fmt: skip

    def wait_for_step(self, step: int) -> None:
        metrics = self.run_dir / "metrics.jsonl"
        deadline = time.monotonic() + 60
        while not metrics.exists() or f'"step": {step},' not in metrics.read_text():
            assert time.monotonic() < deadline and self.ranks[0].poll() is None, self.ranks[0].communicate()
            time.sleep(0.01)

    def wait(self, seconds: float = 60) -> list[int]:
        self.output = [rank.communicate(timeout=seconds)[0] for rank in self.ranks]
        return [rank.returncode for rank in self.ranks]


def losses(run_dir: Path) -> list[float]:
    return [point["loss"] for point in read_points(run_dir / "metrics.jsonl", kind="train")]


def events(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def untouched(recipe) -> list[float]:
    run = Run(recipe, recipe.parent / "untouched")
    assert run.wait() == [EXIT_DONE, EXIT_DONE], run.output
    assert [step_of(path) for path in completed_checkpoints(run.run_dir / "checkpoints")] == [120, 100, 80]
    return losses(run.run_dir)


def test_a_run_that_is_killed_stopped_and_damaged_ends_as_an_untouched_one(recipe, untouched, tmp_path):
    run = Run(recipe, tmp_path / "run")
    run.wait_for_step(30)
    run.ranks[1].kill()
    killed = time.monotonic()
    assert run.wait() == [EXIT_LOST_RANK, -signal.SIGKILL], run.output
    assert time.monotonic() - killed < 4
    assert events(run.run_dir)[-1]["what"] == "lost rank" and events(run.run_dir)[-1]["last_good_step"] == 20

    run = Run(recipe, run.run_dir)
    run.wait_for_step(50)
    run.ranks[1].send_signal(signal.SIGTERM)  # to one of them; both must save the same step
    assert run.wait() == [EXIT_STOPPED, EXIT_STOPPED], run.output
    newest = completed_checkpoints(run.run_dir / "checkpoints")[0]
    assert step_of(newest) >= 50 and "--resume must" in run.output[0]

    weights = newest / "model-shared.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    run = Run(recipe, run.run_dir)
    assert run.wait() == [EXIT_DONE, EXIT_DONE], run.output
    assert f"{weights} has digest" in run.output[0] and "going on from step 40" in run.output[0]
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
    assert "rank 0 does not answer" in run.output[1] and "train_step" in run.output[1]
    assert events(run.run_dir)[-1]["what"] == "hang"


def test_a_stop_file_ends_a_run_at_a_checkpoint_and_is_gone_afterwards(recipe, tmp_path):
    run = Run(recipe, tmp_path / "run")
    run.wait_for_step(3)
    (run.run_dir / "STOP").touch()
    assert run.wait() == [EXIT_STOPPED, EXIT_STOPPED], run.output
    assert len(completed_checkpoints(run.run_dir / "checkpoints")) == 1
    assert not (run.run_dir / "STOP").exists()


@pytest.mark.parametrize("arguments", [[], ["--async_save"]], ids=["waiting", "behind its back"])
def test_a_run_that_cannot_save_trains_on_and_says_so_at_the_end(recipe, untouched, tmp_path, arguments):
    run = Run(recipe, tmp_path / "run", *arguments, file_size=60_000)  # of rank 0: enough for its log
    assert run.wait() == [EXIT_NOT_SAVED, EXIT_NOT_SAVED], run.output
    assert {event["what"] for event in events(run.run_dir)} == {"checkpoint failed"}
    assert len(events(run.run_dir)) == NUM_STEPS / 20 and "not saved" in run.output[0]
    assert losses(run.run_dir) == untouched
    assert list((run.run_dir / "checkpoints").iterdir()) == []


def test_a_checkpoint_written_meanwhile_has_the_bytes_of_one_that_training_waited_for(recipe, untouched, tmp_path):
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
