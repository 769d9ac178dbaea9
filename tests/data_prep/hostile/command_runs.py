"""Run a command's main() in a forked process that may use little time and memory, and check how it ends."""

import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECONDS = 20  # a command takes a fraction of one; other tests may run beside it
MEGABYTES = 1024  # beyond what this process has mapped already


@dataclass(frozen=True)
class Ending:
    """How a command ended: its exit status, -9 if it was killed, and what it printed."""

    status: int
    output: str
    seconds: float


def run_command(main: Callable[[list[str]], int], arguments: list[object], log: Path) -> Ending:
    """Call main(arguments) in a copy of this process, which starts in no time."""
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _run_and_exit(main, list(map(str, arguments)), log)
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() - start > SECONDS:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    return Ending(os.waitstatus_to_exitcode(ended[1]), log.read_text(errors="replace"), time.monotonic() - start)


def check_ending(ending: Ending, status: int, message: str) -> None:
    """Assert the status, one line of output that matches, and no traceback."""
    assert ending.status == status, ending.output[-2000:]
    assert "Traceback" not in ending.output
    lines = [line for line in ending.output.splitlines() if re.search(message, line)]
    assert lines, f"{message!r} is not in {ending.output[-2000:]!r}"
    assert len(ending.output) < 5000, "the output repeats what it read"


def _run_and_exit(main: Callable[[list[str]], int], arguments: list[str], log: Path) -> None:
    status = 70
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = sys.stderr = os.fdopen(descriptor, "w", buffering=1)
        limit = _mapped_bytes() + MEGABYTES * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        status = main(arguments)
    except BaseException:  # whatever happens, this process must not go on as a copy of pytest
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        os._exit(status)


def _mapped_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
