"""Worker processes of a command: they end when it ends, however it ends, and a killed worker ends the command."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

CONTEXT = multiprocessing.get_context("spawn")  # fork would copy the tokenizer's threads in an unknown state


@contextmanager
def worker_pool(
    num_workers: int, start: Callable[..., None] | None = None, *arguments
) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool whose processes first call start(*arguments); OSError if one of them is killed."""
    with ProcessPoolExecutor(num_workers, CONTEXT, initializer=_start_worker, initargs=(start, *arguments)) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise OSError("a worker process was killed, perhaps out of memory; use fewer --workers") from error


def _start_worker(start: Callable[..., None] | None, *arguments: object) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    """Exit when the parent is killed: the next run may start at once, and must be the only writer."""
    multiprocessing.parent_process().join()
    os._exit(1)
