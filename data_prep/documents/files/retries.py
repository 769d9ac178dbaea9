"""Repeat a request to a remote store that fails for reasons that may pass."""

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")
WAITS_SECONDS = (1, 2, 4, 8, 16)  # before each new attempt
# Errors that no second attempt mends.
FINAL_ERRORS = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    ValueError,
)


def with_retries(request: Callable[[], Answer], *, of: str) -> Answer:
    """Return what `request` returns; OSError, naming `of`, if all attempts fail."""
    for seconds in (*WAITS_SECONDS, None):
        try:
            return request()
        except FINAL_ERRORS:
            raise
        except Exception as error:  # every store has errors of its own for a broken connection
            if seconds is None:
                raise OSError(
                    f"{of} cannot be read, after {len(WAITS_SECONDS) + 1} attempts: {_reason(error)}; check the "
                    "connection and start again"
                ) from error
            time.sleep(seconds)
    raise AssertionError("the last attempt returns or raises")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
