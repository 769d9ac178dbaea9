"""One run of a study: where it lies, whether it has finished, and how it is trained as a process of its own."""

import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import yaml

from launch.study.recipes import Study
from launch.study.tables import with_tables
from train.checkpoint.commit import completed_checkpoints, step_of
from train.checkpoint.recovery import obvious_damage
from train.checkpoint.run_folder import write_recipe
from train.config.run_config import RunConfig
from train.metrics.metrics_file import Point, read_points
from train.metrics.records import TrainRecord, ValidationRecord
from train.processes.project_root import ROOT
from train.processes.ranks import free_port

# What no result depends on: where a run lies, how it is watched, and what it keeps.
_NO_INFLUENCE = {"run_dir", "loggers", "hang_timeout_seconds", "loader_workers", "keep_last", "keep_every"}


@dataclass(frozen=True)
class StudyRun:
    """A variant with a seed. config: as it trains, with its folder, its seed and the paths of its tables."""

    variant: str
    seed: int
    recipe: Path
    config: RunConfig

    @property
    def name(self) -> str:
        return f"{self.variant}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        return Path(self.config.run_dir)

    @property
    def frozen_recipe(self) -> Path:
        """What the run is started with: its recipe as it was checked, which somebody may edit while others train."""
        return self.folder.with_suffix(".yaml")

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """What the run prints; beside its folder, which must be empty where a run begins."""
        return self.folder.with_suffix(".log")

    @property
    def model(self) -> Path:
        """The last checkpoint, a Hugging Face directory."""
        return self.folder / "checkpoints" / f"step_{self.config.max_steps:08d}"

    @property
    def is_finished(self) -> bool:
        """Whether the last checkpoint is there, and the validation, which a stop may have left out."""
        saved = completed_checkpoints(self.folder / "checkpoints")
        if not saved or saved[0] != self.model or obvious_damage(saved[0]) is not None:
            return False
        return any(point.step == self.config.max_steps for point in self._points(ValidationRecord))

    @property
    def num_steps_done(self) -> int:
        """As far as the metrics tell; 0 before the first."""
        points = self._points(TrainRecord)
        return points[-1].step if points else 0

    @property
    def num_steps_saved(self) -> int:
        saved = completed_checkpoints(self.folder / "checkpoints")
        return step_of(saved[0]) if saved else 0

    def _points(self, record_type: type[Point]) -> list[Point]:
        """Of the metrics, as far as they are written."""
        return read_points(self.metrics, record_type) if self.metrics.is_file() else []


def study_run(study: Study, variant: str, output: Path, *, seed: int) -> StudyRun:
    config = with_tables(study, variant, output, seed=seed)
    run_dir = str(output / variant / f"seed_{seed}")
    return StudyRun(variant, seed, study.recipe(variant), dataclasses.replace(config, run_dir=run_dir, seed=seed))


def check_same_run(run: StudyRun) -> None:
    """ValueError where the folder holds a run of another config: its results would pass for those of this one."""
    path = run.folder / "run.yaml"
    if not path.is_file():
        return
    try:
        found = RunConfig(**yaml.safe_load(path.read_text()))  # with the default of what did not exist then
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is not the config of a run ({error}); restore it, or remove {run.folder}") from None
    for spec in dataclasses.fields(RunConfig):
        before, now = _result_of(found, spec.name), _result_of(run.config, spec.name)
        if before != now:
            raise ValueError(
                f"{run.folder} was trained with {spec.name}={before}, but {run.recipe} now says {now}; "
                "give another --output, or remove that folder"
            )


def _result_of(config: RunConfig, name: str):
    """A field's value as far as results depend on it.

    A study may move: tables are compared by name here, and by digest in launch/study/main.py.
    """
    if name in _NO_INFLUENCE:
        return None
    value = getattr(config, name)
    return [Path(table).name for table in value] if name == "route_table" else value


def train_command(run: StudyRun, *, num_ranks: int) -> list[str]:
    """The command that a person would type for this run."""
    launcher = [str(Path(sys.executable).with_name("deepspeed")), "--quiet", "--num_gpus", str(num_ranks)]
    program = [sys.executable] if num_ranks == 1 else [*launcher, "--master_port", str(free_port())]
    return [*program, str(ROOT / "launch" / "train.py"), "--config", str(run.frozen_recipe)]


class Stop:
    """Remembers Ctrl-C or SIGTERM."""

    def __init__(self):
        self.is_requested = False

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, *_) -> None:
        self.is_requested = True


def train_run(
    run: StudyRun, *, num_ranks: int, stop: Stop, watch: Callable[[], None], say: Callable[[str], None]
) -> int | None:
    """Train one run, or go on with it, and return its exit code; None where stop ended it, or came before.

    watch() is called about twice a second. A run that a killed study left behind is waited for.
    """
    with _locked_log(run, stop=stop, watch=watch, say=say) as log:
        if stop.is_requested:
            return None
        if run.is_finished:
            return 0
        write_recipe(run.config, run.frozen_recipe)
        command = train_command(run, num_ranks=num_ranks)
        log.write(f"$ {' '.join(command)}\n".encode())
        log.flush()
        # A session of its own: Ctrl-C is for the study, which passes it on as a file.
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        while process.poll() is None:
            if stop.is_requested:
                # It goes on from its last checkpoint. One that it made now, between two lines of its log, would leave
                # the next line fewer steps to be the mean of, and the table would depend on the stop.
                os.killpg(process.pid, signal.SIGKILL)
            watch()
            time.sleep(0.5)
        return None if stop.is_requested and not run.is_finished else process.returncode


@contextmanager
def _locked_log(run: StudyRun, *, stop: Stop, watch: Callable, say: Callable) -> Iterator[BinaryIO]:
    """The run's log, which is locked as long as any process has it open: all ranks of a run write to it."""
    run.log.parent.mkdir(parents=True, exist_ok=True)
    with open(run.log, "ab") as log:
        while not stop.is_requested:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                say(f"{run.name}: a process of another study still trains it, waiting for its end")
                while not stop.is_requested and _is_locked(log):
                    watch()
                    time.sleep(0.5)
        yield log


def _is_locked(log: BinaryIO) -> bool:
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def log_tail(run: StudyRun, *, num_lines: int = 12) -> str:
    """The end of what the run printed."""
    if not run.log.is_file():
        return ""
    return "\n".join(f"    {line}" for line in run.log.read_text(errors="replace").splitlines()[-num_lines:])
