"""Two ranks of launch/train.py as processes of a test, and what they leave behind."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from train.metrics.metrics_file import read_points
from train.metrics.records import TrainRecord
from train.processes.project_root import ROOT
from train.processes.ranks import free_port


class Run:
    """Two ranks of a run, started as a launcher would; file_size: what the files of rank 0 may grow to."""

    def __init__(self, recipe: Path, run_dir: Path, *arguments, file_size: int = resource.RLIM_INFINITY):
        self.run_dir = run_dir
        self._logs = [tempfile.TemporaryFile("w+") for _ in range(2)]
        port = str(free_port())
        environment = {
            **os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        command = [sys.executable, "launch/train.py", "--config", str(recipe), "--run_dir", str(run_dir), *arguments]
        self.ranks = [
            subprocess.Popen(
                command, cwd=ROOT, env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=log, stderr=subprocess.STDOUT,
                preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)),
            )
            for rank, (log, limit) in enumerate(zip(self._logs, [file_size, resource.RLIM_INFINITY], strict=True))
        ]  # fmt: skip

    def wait_for_step(self, step: int) -> None:
        metrics = self.run_dir / "metrics.jsonl"
        deadline = time.monotonic() + 60
        while not metrics.exists() or f'"step": {step},' not in metrics.read_text():
            assert time.monotonic() < deadline and self.ranks[0].poll() is None, self.output
            time.sleep(0.01)

    def wait(self, seconds: float = 60) -> list[int]:
        """The exit codes of both."""
        deadline = time.monotonic() + seconds
        return [rank.wait(timeout=max(deadline - time.monotonic(), 0.1)) for rank in self.ranks]

    @property
    def output(self) -> list[str]:
        """What each rank has printed so far."""
        for log in self._logs:
            log.seek(0)
        return [log.read() for log in self._logs]


def losses(run_dir: Path) -> list[float]:
    return [point.loss for point in read_points(run_dir / "metrics.jsonl", TrainRecord)]


def events(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
