"""One run of a study as a process of its own: started, watched and stopped, or awaited if a study left it running."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from launch.study.runs import StudyRun
from train.config.recipe_file import write_recipe
from train.processes.project_root import ROOT
from train.processes.ranks import free_port


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
    run: StudyRun, *, num_ranks: int, stop: Stop, watch: Callable[[], None], print_line: Callable[[str], None]
) -> int | None:
    """Train or resume a run and return its exit code; None if a stop ended it or came before it.

    watch() is called about twice a second. If a killed study left the run training, this waits for it to end.
    """
    with _locked_log(run, stop=stop, watch=watch, print_line=print_line) as log:
        if stop.is_requested:
            return None
        if run.is_finished:
            return 0
        write_recipe(run.config, run.frozen_recipe)
        command = train_command(run, num_ranks=num_ranks)
        log.write(f"$ {' '.join(command)}\n".encode())
        log.flush()
        # A session of its own: Ctrl-C reaches the study alone, which decides how the run ends.
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        while process.poll() is None:
            if stop.is_requested:
                # The run resumes from its last checkpoint. A checkpoint at the stop, between two lines of its log,
                # would leave the next line fewer steps to average over, so the table would depend on the stop.
                os.killpg(process.pid, signal.SIGKILL)
            watch()
            time.sleep(0.5)
        return None if stop.is_requested and not run.is_finished else process.returncode


def train_command(run: StudyRun, *, num_ranks: int) -> list[str]:
    """The command that a person would type for this run."""
    launcher = [str(Path(sys.executable).with_name("deepspeed")), "--quiet", "--num_gpus", str(num_ranks)]
    program = [sys.executable] if num_ranks == 1 else [*launcher, "--master_port", str(free_port())]
    return [*program, str(ROOT / "launch" / "train.py"), "--config", str(run.frozen_recipe)]


def log_tail(run: StudyRun, *, num_lines: int = 12) -> str:
    """The end of the run's output."""
    if not run.log.is_file():
        return ""
    return "\n".join(f"    {line}" for line in run.log.read_text(errors="replace").splitlines()[-num_lines:])


@contextmanager
def _locked_log(run: StudyRun, *, stop: Stop, watch: Callable, print_line: Callable) -> Iterator[BinaryIO]:
    """The run's log, locked while any process has it open: all ranks of a run write to it."""
    run.log.parent.mkdir(parents=True, exist_ok=True)
    with open(run.log, "ab") as log:
        while not stop.is_requested:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                print_line(f"{run.name}: a process of another study is still training it; waiting for it to end")
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
