"""HashedFile: a file whose bytes are hashed while they are written, so that nobody reads it again for its digest."""

import os
from dataclasses import dataclass
from pathlib import Path

import xxhash

MAX_RUN = 1 << 30  # bytes: ranks that resume share the runs, so that none has much more to read than another


@dataclass(frozen=True)
class Run:
    """At most MAX_RUN consecutive bytes of a file that one rank has written."""

    begin: int  # index of the first byte in the file
    size: int
    xxh3: str  # 32 hex digits, xxh3-128


class HashedFile:
    """Writes bytes at ascending positions. When it closes, the bytes are on disk and `runs` describes them.

    path: a file that does not exist yet. With may_exist=True, the other bytes of an existing file stay: so several
    ranks write one file, each its own bytes.
    """

    def __init__(self, path: Path, *, may_exist: bool = False):
        self.path, self.runs = path, []
        self._flags = os.O_WRONLY if may_exist else os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self._begin = self._end = 0
        self._digest = xxhash.xxh3_128()

    def __enter__(self):
        self._file = open(os.open(self.path, self._flags, 0o666), "wb")
        return self

    def write(self, data: bytes | memoryview, *, begin: int | None = None) -> None:
        """Write bytes from position `begin` on, by default after the last ones."""
        if begin is not None and begin != self._end:
            self._end_run()
            self._file.seek(begin)
            self._begin = self._end = begin
        data = memoryview(data)
        while data:
            part, data = data[: self._room], data[self._room :]
            self._digest.update(part)
            self._end += self._file.write(part)
            if not self._room:
                self._end_run()

    def __exit__(self, error_type, *_):
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._end_run()

    @property
    def _room(self) -> int:
        """Bytes that this run may still get."""
        return self._begin + MAX_RUN - self._end

    def _end_run(self) -> None:
        if self._end > self._begin:
            self.runs.append(Run(self._begin, self._end - self._begin, self._digest.hexdigest()))
        self._begin = self._end
        self._digest.reset()


def write_hashed(path: Path, content: bytes) -> list[Run]:
    """Write a small file at once."""
    with HashedFile(path) as file:
        file.write(content)
    return file.runs
