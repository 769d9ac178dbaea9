"""Worker processes of a command: they end when it ends, however it ends, and a killed worker ends the command."""

import argparse
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path

CONTEXT = multiprocessing.get_context("spawn")  # fork would copy the tokenizer's threads in an unknown state
CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def workers_or_auto(text: str) -> int | None:
    """Return the value of --workers: a number of at least 1, or None for "auto"; ArgumentTypeError for others."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1, or auto")
    return int(text)


def resolve_workers(num_workers: int | None, *, num_on_host: int = 1) -> int:
    """Return the number of workers of this process; None: its share of the cores that the host's processes may use."""
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"--workers {num_workers} must be at least 1, or auto")
    return num_workers or max(1, num_cores() // num_on_host)


def num_cores() -> int:
    """Return the cores that this process may use: those that a launcher or a container left to it."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_QUOTA.read_text().split()
        return min(affinity, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # "max": no quota
        return affinity


@contextmanager
def worker_pool(
    num_workers: int, start: Callable[..., None] | None = None, *arguments
) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool whose processes first call start(*arguments); OSError if one of them is killed."""
    with _Pool(num_workers, CONTEXT, initializer=_start_worker, initargs=(start, *arguments)) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise OSError("a worker process was killed, perhaps out of memory; use fewer --workers") from error
        except KeyboardInterrupt:
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


class _Pool(ProcessPoolExecutor):
    """Its processes are deaf to Ctrl-C, which a terminal sends to all processes: the parent alone answers it."""

    def submit(self, *arguments, **options):
        """Submit a task, for which a process may be started: it inherits the mask of signals."""
        resource_tracker.ensure_running()  # its own start, during that of the first worker, would clear the mask
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(*arguments, **options)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start_worker(start: Callable[..., None] | None, *arguments: object) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    """Exit when the parent is killed: the next run may start at once, and must be the only writer."""
    multiprocessing.parent_process().join()
    os._exit(1)
