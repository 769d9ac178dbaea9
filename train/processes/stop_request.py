"""Stop requests: after SIGTERM, SIGUSR1 or Ctrl-C to any rank, or a file STOP in run_dir, a run saves and exits."""

import math
import os
import signal
import threading
import time
from pathlib import Path

STOP_FILE = "STOP"
_SECONDS_BETWEEN_LOOKS = 1.0  # at the file, which may be on a shared disk
# The launcher may forward a signal that every process has already received, so repeats within 2 s count as one.
_SECONDS_OF_ONE_REQUEST = 2.0


class StopRequested(Exception):
    """The run stops on request, after a checkpoint."""


SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Remembers a request to stop this process; a later second signal ends the process at once, without saving."""

    def __init__(self, run_dir: str | Path, *, looks_for_file: bool = True):
        """looks_for_file: on rank 0 alone, since all ranks would ask a shared disk for the same."""
        self._file, self._looks_for_file = Path(run_dir) / STOP_FILE, looks_for_file
        self._saw_file, self._next_look = False, -math.inf
        self._first: float | None = None

    def listen(self) -> None:
        """Receive the signals on a thread: Python's own handlers would wait until the main thread left a collective."""
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)  # without a handler, the default action is taken
        threading.Thread(target=self._receive, args=(read_end,), daemon=True, name="signals").start()

    def is_made(self) -> bool:
        """Whether this process has received a request; a file may be seen a second late."""
        now = time.monotonic()
        if self._looks_for_file and now >= self._next_look:
            self._saw_file, self._next_look = self._file.exists(), now + _SECONDS_BETWEEN_LOOKS
        return self._first is not None or self._saw_file

    def clear(self) -> None:
        """Delete the file, which would stop the next run too. Rank 0 only."""
        self._file.unlink(missing_ok=True)
        self._saw_file = False

    def _receive(self, read_end: int) -> None:
        while True:
            (number,) = os.read(read_end, 1)
            now = time.monotonic()
            if number not in SIGNALS:
                continue
            if self._first is not None and now - self._first > _SECONDS_OF_ONE_REQUEST:
                os._exit(128 + number)
            self._first = now if self._first is None else self._first
