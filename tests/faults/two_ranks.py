"""Two ranks of launch/train.py as processes of a test, and the files that they leave behind."""

import json
import os
import resource
import tempfile
import time
from pathlib import Path

from tests.processes import Process, run_script
from train.metrics.metrics_file import read_points
from train.metrics.records import TrainRecord
from train.processes.ranks import free_port


class Run:
    """Two ranks of a run, started as a launcher starts them. file_size: limit of the files of rank 0 in bytes."""

    def __init__(self, recipe: Path, run_dir: Path, *arguments, file_size: int = resource.RLIM_INFINITY):
        self.run_dir, self._logs = run_dir, tempfile.TemporaryDirectory()
        command = ["launch/train.py", "--config", str(recipe), "--run_dir", str(run_dir), *arguments]
        meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        self.ranks = [
            Process(
                run_script, *command, log=self._log(rank), file_size=resource.RLIM_INFINITY if rank else file_size,
                environment={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(2)
        ]  # fmt: skip

    def _log(self, rank: int) -> Path:
        return Path(self._logs.name, f"{rank}.log")

    def wait_for_step(self, step: int) -> None:
        metrics = self.run_dir / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not metrics.exists() or f'"step": {step},' not in metrics.read_text():
            assert time.monotonic() < deadline and self.ranks[0].poll() is None, self.output
            time.sleep(0.01)

    def wait_for_file(self, name: str) -> None:
        """Wait until a file of the run's folder exists."""
        deadline = time.monotonic() + 120
        while not (self.run_dir / name).exists():
            assert time.monotonic() < deadline and self.ranks[0].poll() is None, self.output
            time.sleep(0.01)

    def wait(self, seconds: float = 120) -> list[int]:
        """The exit codes of both ranks. TimeoutError if one of them runs for longer."""
        deadline = time.monotonic() + seconds
        return [rank.wait(timeout=max(deadline - time.monotonic(), 0.1)) for rank in self.ranks]

    @property
    def output(self) -> list[str]:
        """The text that each rank has printed so far."""
        return [self._log(rank).read_text() if self._log(rank).exists() else "" for rank in range(2)]


def losses(run_dir: Path) -> list[float]:
    return [point.loss for point in read_points(run_dir / "metrics.jsonl", TrainRecord)]


def events(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
