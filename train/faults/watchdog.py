"""Watchdog: notices when the ranks stop taking steps, and reports which rank is the cause and where it hangs.

A thread of every rank writes heartbeats into the run folder: a counter, the step, and the stack of the training thread.
Files need no process group, which fails when a rank does; the last heartbeat of a stopped rank stays readable.
"""

import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from train.processes.waiting import is_waiting

_BEATS_TO_JUDGE = 4  # a rank that misses this many heartbeats is stopped, not only late
# Only in this phase do steps take similar time; in other phases, a busy rank is not considered hung.
TRAINING = "training"


@dataclass(frozen=True)
class Heartbeat:
    """The last sign of life of one rank."""

    rank: int
    count: int  # grows with every beat
    step: int
    phase: str  # TRAINING, or another activity between steps
    stack: str  # of the training thread, outermost call first
    seconds_waited: float = 0.0  # for other ranks, while the stack stayed the same; 0 if the rank is busy


class Watchdog:
    """Call at() at every sign of progress; if no rank makes any for timeout_seconds, a thread calls fail(report).

    Every rank that still runs reaches the same report on its own, within two seconds after the timeout.
    """

    def __init__(
        self, folder: Path, *, rank: int, world_size: int, timeout_seconds: float, fail: Callable[[str], None]
    ):
        self._folder, self._rank, self._world_size = folder, rank, world_size
        self._timeout, self._fail = timeout_seconds, fail
        self._interval = min(0.5, timeout_seconds / 8)
        self._main, self._ended = threading.get_ident(), threading.Event()
        self._counts: dict[int, int] = {}
        self._counted = 0.0
        self.num_beats = self._num_waiting = 0
        self._stack: list[str] = []
        self._stack_since = self._seconds_waited = 0.0
        self.at(0, "starting")

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._beat()
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

    def at(self, step: int, phase: str = TRAINING) -> None:
        """This rank has reached a step, or another phase between steps."""
        self._step, self._phase, self._since = step, phase, time.monotonic()

    def stop(self) -> None:
        self._ended.set()

    def take_waiting_share(self) -> float:
        """The share of heartbeats since the last call at which this rank was in a collective."""
        share = self._num_waiting / max(self.num_beats, 1)
        self.num_beats = self._num_waiting = 0
        return share

    def _watch(self) -> None:
        draw = random.Random()  # a separate generator: the thread must not draw from that of the run
        # Intervals vary: at equal ones, a rank whose steps take just as long would always be seen at the same place.
        while not self._ended.wait(self._interval * draw.uniform(0.75, 1.25)):
            self._beat()
            report = self._judge(time.monotonic())
            if report:
                self._fail(report)
                return

    def _judge(self, now: float) -> str | None:
        """The report with which this rank exits; None before the timeout, or while a rank may be busy."""
        report = None
        if now - self._since < self._timeout - _BEATS_TO_JUDGE * self._interval:
            self._counts = {}
        elif self._seconds_waited > self._timeout and _all_wait(beats := self._read_all(), seconds=self._timeout):
            report = self._name(_behind(beats), "stuck")
        elif not self._counts:
            self._counts, self._counted = {beat.rank: beat.count for beat in self._read_all()}, now
        elif now - self._since > self._timeout and now - self._counted > _BEATS_TO_JUDGE * self._interval:
            report = self._diagnose(self._read_all())
            self._counts = {}
        return report

    def _beat(self) -> None:
        stack = _stack_of(self._main)
        self.num_beats += 1
        waits, now = _waits(stack), time.monotonic()
        self._num_waiting += waits
        if not waits or stack != self._stack:
            self._stack, self._stack_since = stack, now
        self._seconds_waited = now - self._stack_since
        beat = Heartbeat(self._rank, time.monotonic_ns(), self._step, self._phase, "".join(stack), self._seconds_waited)
        path = self._folder / f"rank_{self._rank:05d}.json"
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(asdict(beat)))
            os.replace(temporary, path)
        except OSError:  # a full disk is no reason to stop watching
            pass

    def _read_all(self) -> list[Heartbeat]:
        beats = []
        for rank in range(self._world_size):
            try:
                beats.append(Heartbeat(**json.loads((self._folder / f"rank_{rank:05d}.json").read_text())))
            except (OSError, ValueError, TypeError):
                beats.append(Heartbeat(rank, 0, 0, "never seen", ""))
        return beats

    def _diagnose(self, beats: list[Heartbeat]) -> str | None:
        """Blame silent ranks; if there are none, the ranks at the lowest step. None while a rank is in a long phase."""
        silent = [beat for beat in beats if self._counts.get(beat.rank) == beat.count]
        if not silent and any(beat.phase != TRAINING for beat in beats):
            return None
        return self._name(silent, "silent") if silent else self._name(_behind(beats), "stuck")

    def _name(self, named: list[Heartbeat], state: str) -> str:
        lines = [f"no step for {self._timeout:g} seconds; {state}: rank {', '.join(str(b.rank) for b in named)}"]
        lines += [f"rank {beat.rank}: last seen at step {beat.step}, {beat.phase}, in\n{beat.stack}" for beat in named]
        return "\n".join(lines)


def _all_wait(beats: list[Heartbeat], *, seconds: float) -> bool:
    """Whether every rank has waited for others this long: none is busy, so a message between them is lost."""
    return all(beat.seconds_waited > seconds for beat in beats)


def _behind(beats: list[Heartbeat]) -> list[Heartbeat]:
    step = min(beat.step for beat in beats)
    return [beat for beat in beats if beat.step == step]


def _waits(stack: list[str]) -> bool:
    """Whether a rank with this stack waits for others: inside a `with waiting()`, or in a collective of torch."""
    return is_waiting() or any("/torch/distributed/" in frame for frame in stack[-4:])


def _stack_of(thread: int) -> list[str]:
    """The stack of a thread, outermost call first; without source lines, since reading them may wait for an import.

    If the thread joins another one, that thread's stack follows.
    """
    frame, stack, joined = sys._current_frames().get(thread), [], None
    while frame is not None:
        if frame.f_code is threading.Thread.join.__code__:
            joined = frame.f_locals["self"].ident
        stack.append(f'  File "{frame.f_code.co_filename}", line {frame.f_lineno}, in {frame.f_code.co_name}\n')
        frame = frame.f_back
    return stack[::-1] + (_stack_of(joined) if joined else [])
