"""How far a study is: a bar on a terminal, a line at the end of every run anywhere, and the time that is left."""

import sys
import time

from tqdm import tqdm

from launch.study.runs import StudyRun


class Progress:
    """Counts optimizer steps of all runs. The time left is reckoned from the steps made since the start."""

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
        """Name the run; off a terminal as a line, because no bar moves there until the run ends."""
        self._bar.set_description(run.name)
        if self._bar.disable:
            self.say(
                f"{run.name}: training from step {run.num_steps_saved:,} of {run.config.max_steps:,}, see {run.log}"
            )

    def watch(self, run: StudyRun) -> None:
        """Move the bar to what the metrics of the run that trains say."""
        if not self._bar.disable:
            self._bar.n = self._num_steps - run.num_steps_saved + run.num_steps_done
            self._bar.refresh()

    def end(self, run: StudyRun, what: str) -> None:
        number = sum(run.is_finished for run in self._runs)
        self.say(f"[{number}/{len(self._runs)} finished] {run.name}: {what}{self._left()}")

    def say(self, text: str) -> None:
        """Print a line, above the bar."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        self._bar.close()

    @property
    def _num_steps(self) -> int:
        return sum(run.num_steps_saved for run in self._runs)

    def _left(self) -> str:
        done, total = self._num_steps, sum(run.config.max_steps for run in self._runs)
        if done == self._first or done == total:
            return ""
        seconds = (time.monotonic() - self._start) / (done - self._first) * (total - done)
        return f"; about {seconds / 60:,.0f} minutes left"
