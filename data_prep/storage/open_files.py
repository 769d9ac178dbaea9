"""Files that are read at arbitrary places, of which only the most recently used stay open."""

import os
import resource
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

Opened = TypeVar("Opened")

_MOST_DESCRIPTORS = 2**12  # that a process asks for
_MOST_OPEN = 2**10  # files of one process


class OpenFile:
    """A file for reading; its descriptor is closed when nothing refers to the object, so no reader loses it."""

    def __init__(self, path: Path):
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # Otherwise a read of 2 KiB makes the kernel read ahead 128 KiB to 8 MiB.
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        self.status = os.fstat(self._descriptor)
        self.num_bytes = self.status.st_size

    def __del__(self):
        with suppress(AttributeError, OSError):  # of a file that could not be opened
            os.close(self._descriptor)

    def will_need(self, start: int, num_bytes: int) -> None:
        """Let the disk start to read num_bytes from byte `start` on, and return at once."""
        os.posix_fadvise(self._descriptor, start, num_bytes, os.POSIX_FADV_WILLNEED)

    def read(self, start: int, num_bytes: int) -> bytes:
        """Return num_bytes from byte `start` on; ValueError if the file has become shorter than that."""
        content = os.pread(self._descriptor, num_bytes, start)
        while len(content) < num_bytes:  # one call returns at most 2 GiB
            more = os.pread(self._descriptor, num_bytes - len(content), start + len(content))
            if not more:
                raise ValueError(
                    f"{self.path} had {self.num_bytes} bytes when it was opened, but now ends after "
                    f"{start + len(content)}; copy it again"
                )
            content += more
        return content


class RecentlyUsed(Generic[Opened]):
    """What was opened most recently, at most max_open_files() of it; threads may share it.

    Whoever dropped a key leaves what was opened for it here until others need the place.
    """

    def __init__(self):
        self._opened: OrderedDict[Hashable, Opened] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Opened]) -> Opened:
        """Return what was made for `key`, or make it."""
        with self._lock:
            if key in self._opened:
                self._opened.move_to_end(key)
                return self._opened[key]
        opened = make()
        with self._lock:
            self._opened[key] = opened
            while len(self._opened) > max_open_files():
                self._opened.popitem(last=False)
        return opened


@cache
def max_open_files() -> int:
    """A quarter of the descriptors that this process may have, after it has raised its own limit where it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return _MOST_OPEN if soft == resource.RLIM_INFINITY else max(1, min(_MOST_OPEN, soft // 4))
