"""Write a file so that its final name only ever refers to a complete file: temporary name, fsync, rename."""

import errno
import io
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# A folder may be written from several hosts, or containers with equal process ids.
_HOST = re.sub(r"[^\w-]", "", socket.gethostname())[:20]


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a binary file that replaces `path` when the block ends; an error leaves `path` unchanged.

    OSError names `path` if the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        with io.BufferedWriter(_NamedFile(temporary, path)) as file:
            yield file
            flush_to_disk(file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def temporary_path(path: Path) -> Path:
    """Return a hidden name that no other process uses, in the same folder, so that the rename is atomic."""
    return path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def flush_to_disk(file: BinaryIO) -> None:
    """Return when the file's bytes would survive a power failure."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:  # network file systems report a full disk here
        raise OSError(error.errno, error.strerror, str(file.name)) from None


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power failure: a rename changes the folder, not the file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _NamedFile(io.FileIO):
    """A new file whose write errors name the file that it is going to be; the system's name none."""

    def __init__(self, temporary: Path, path: Path):
        super().__init__(temporary, "xb")
        self._path = path

    def write(self, content: bytes) -> int | None:
        try:
            return super().write(content)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None
