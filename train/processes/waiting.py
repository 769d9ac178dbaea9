"""Waiting: marks the places where the training thread waits for other ranks outside torch's collectives."""

from collections.abc import Iterator
from contextlib import contextmanager

_num_open = 0  # number of `with waiting()` that the training thread is inside; only that thread writes it


@contextmanager
def waiting() -> Iterator[None]:
    """The watchdog counts the time inside as waiting, not as work."""
    global _num_open
    _num_open += 1
    try:
        yield
    finally:
        _num_open -= 1


def is_waiting() -> bool:
    """Whether the training thread is inside a `with waiting()`."""
    return _num_open > 0
