"""Processes that work for a command: they end with it, however it ends, and one that is killed ends it."""

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
    """Yield a pool whose processes call start(*arguments) first; OSError where one of them was killed."""
    with ProcessPoolExecutor(num_workers, CONTEXT, initializer=_start_worker, initargs=(start, *arguments)) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise OSError("a worker process was killed, perhaps for want of memory; use fewer --workers") from error


def _start_worker(start: Callable[..., None] | None, *arguments: object) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    """Leave nobody writing when the parent was killed: the next run may begin at once."""
    multiprocessing.parent_process().join()
    os._exit(1)
