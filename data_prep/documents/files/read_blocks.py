"""Read a file, or a span of its bytes, block by block."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from data_prep.documents.files.remote_files import RemoteFile

BLOCK_BYTES = 2**14


class Digest(Protocol):
    """What takes all bytes in order, such as xxhash.xxh3_128()."""

    def update(self, content: bytes) -> None: ...


def read_blocks(
    path: Path | RemoteFile,
    on_read: Callable[[int], None],
    *,
    digest: Digest | None = None,
    first: int = 0,
    last: int | None = None,
) -> Iterator[bytes]:
    """Yield the bytes first..last of a file in blocks; call `on_read` with the size of each, and update `digest`."""
    with path.open("rb") as file:
        position = file.seek(first)
        while block := file.read(BLOCK_BYTES if last is None else min(BLOCK_BYTES, last - position)):
            position += len(block)
            on_read(len(block))
            if digest is not None:
                digest.update(block)
            yield block
