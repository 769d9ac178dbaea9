"""The progress of a study: a bar on a terminal, a line at the end of every run, and the time left."""

import sys
import time

from tqdm import tqdm

from launch.study.runs import StudyRun


class Progress:
    """Counts the optimizer steps of all runs. The time left follows from the steps taken since the start."""

    def __init__(self, runs: list[StudyRun]):
        self._runs = runs
        self._first, self._start = self._num_steps, time.monotonic()
        self._bar = tqdm(
            total=sum(run.config.max_steps for run in runs),
            initial=self._first,
            unit="step",
            disable=not sys.stderr.isatty(),
        )

    def begin(self, run: StudyRun) -> None:
        """Name the run; without a terminal, which has no bar, in a line of its own."""
        self._bar.set_description(run.name)
        if self._bar.disable:
            self.print_line(
                f"{run.name}: training from step {run.num_steps_saved:,} of {run.config.max_steps:,}, see {run.log}"
            )

    def watch(self, run: StudyRun) -> None:
        """Move the bar to the last step in the metrics of the run that trains."""
        if not self._bar.disable:
            self._bar.n = self._num_steps - run.num_steps_saved + run.num_steps_reported
            self._bar.refresh()

    def end(self, run: StudyRun, outcome: str) -> None:
        number = sum(run.is_finished for run in self._runs)
        self.print_line(f"[{number}/{len(self._runs)} finished] {run.name}: {outcome}{self._time_left()}")

    def print_line(self, text: str) -> None:
        """Print a line above the bar."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        self._bar.close()

    @property
    def _num_steps(self) -> int:
        return sum(run.num_steps_saved for run in self._runs)

    def _time_left(self) -> str:
        step, last = self._num_steps, sum(run.config.max_steps for run in self._runs)
        if step in (self._first, last):
            return ""
        seconds = (time.monotonic() - self._start) / (step - self._first) * (last - step)
        return f"; about {seconds / 60:,.0f} minutes left"
