"""Read the members of a .tar as a stream, and refuse an archive that is cut short or continues after its end mark."""

import io
import tarfile
from collections.abc import Callable, Iterator
from functools import partial

from data_prep.documents.decompress import DamagedShard
from data_prep.documents.files.read_blocks import BLOCK_BYTES


def tar_members(label: str, blocks: Iterator[bytes]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the name and the blocks of each file that is not hidden; read the blocks before the next name.

    ValueError for a link, whose text may be elsewhere. DamagedShard if the archive has no end mark, because it was cut
    short, or if anything but zeros follows the mark: tarfile would end silently in both cases.
    """
    stream = _Stream(blocks)
    damaged = partial(_damaged, stream, label)
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in iter(archive.next, None):
                archive.members = []  # otherwise it grows by half a KB per member, of which there may be millions
                if _is_visible(member) and not member.isdir():
                    _check_is_file(label, member)
                    yield member.name, _content(archive.extractfile(member), damaged)
            end = archive.offset  # where the end mark, two blocks of zeros, begins
    except tarfile.TarError as error:
        raise damaged(error) from error
    for _ in iter(partial(stream.read, BLOCK_BYTES), b""):
        pass
    if stream.num_bytes < end + tarfile.BLOCKSIZE:
        raise damaged("it ends before its end mark")
    if stream.end_of_content > end:
        raise damaged(f"something follows its end mark at byte {end}")


def _is_visible(member: tarfile.TarInfo) -> bool:
    return not any(part.startswith(".") and part not in (".", "..") for part in member.name.split("/"))


def _check_is_file(label: str, member: tarfile.TarInfo) -> None:
    if not member.isfile():
        found = f"a link to {member.linkname}" if member.linkname else f"of tar's type {member.type!r}"
        raise ValueError(
            f"{label}, {member.name} is {found}, not a file; create the archive with `tar --dereference "
            "--hard-dereference`, or exclude this member"
        )


def _content(file: io.BufferedReader, damaged: Callable[[object], DamagedShard]) -> Iterator[bytes]:
    try:
        yield from iter(partial(file.read, BLOCK_BYTES), b"")
    except tarfile.TarError as error:
        raise damaged(error) from error


def _damaged(stream: "_Stream", label: str, reason: object) -> DamagedShard:
    return DamagedShard.near(f"byte {stream.num_bytes} of its archive", label, reason)


class _Stream(io.RawIOBase):
    """Blocks as a file that is read once, which records the position of the last byte other than zero."""

    def __init__(self, blocks: Iterator[bytes]):
        self._blocks, self._rest = blocks, b""
        self.num_bytes, self.end_of_content = 0, 0

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and (block := next(self._blocks, None)) is not None:
            if content := block.rstrip(b"\0"):
                self.end_of_content = self.num_bytes + len(content)
            self.num_bytes += len(block)
            self._rest += block
        out, self._rest = self._rest[:size], self._rest[size:]
        return out
