"""Stop requests: SIGTERM, SIGUSR1 or Ctrl-C to any rank, or a file STOP in run_dir, ask for a last checkpoint."""

import os
import signal
import time
from pathlib import Path

STOP_FILE = "STOP"
# A launcher passes a signal on that the terminal or the scheduler may have sent to every process already.
_SECONDS_OF_ONE_REQUEST = 2.0


class StopRequested(Exception):
    """The run was asked to stop, and has saved."""


class StopRequest:
    """Remembers that this process was asked to stop; asked again later, it leaves at once, without saving."""

    def __init__(self, run_dir: str | Path):
        self._file = Path(run_dir) / STOP_FILE
        self._first: float | None = None

    def listen(self) -> None:
        """Take over the signals."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._receive)

    def is_made(self) -> bool:
        """Whether this process knows of a request."""
        return self._first is not None or self._file.exists()

    def clear(self) -> None:
        """Forget the file, which would stop the next run too. Rank 0 only."""
        self._file.unlink(missing_ok=True)

    def _receive(self, number: int, _) -> None:
        now = time.monotonic()
        if self._first is not None and now - self._first > _SECONDS_OF_ONE_REQUEST:
            os._exit(128 + number)
        self._first = self._first if self._first is not None else now
