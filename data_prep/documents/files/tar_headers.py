"""The headers of a .tar, read from a tape; tarfile parses single ones here, but does not walk the archive.

tarfile ends silently where an archive is cut or continues after its end mark, reads extended headers of any size into
memory, and fills the holes of sparse members with zeros.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from data_prep.documents.files.decompress import DamagedShard
from data_prep.documents.files.read_blocks import BLOCK_BYTES

LARGEST_HEADERS = 2**20  # bytes of the extended headers of one member
LONGEST_PATH = 4096  # characters; what file systems allow
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_EXTENDED = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, *_PAX)


@dataclass(frozen=True)
class Member:
    """A file, folder, link or device in an archive."""

    header: tarfile.TarInfo
    name: str
    num_bytes: int  # of its content, which follows


def next_member(tape: "Tape") -> Member | None:
    """Return the next member with what its extended headers say; None at the end mark."""
    fields: dict[str, str] = {}
    num_bytes = 0
    while (header := _read_header(tape)) is not None:
        if header.type not in _EXTENDED:
            return _member(tape, header, fields)
        num_bytes += header.size
        if num_bytes > LARGEST_HEADERS:
            raise ValueError(
                f"{tape.label} has a member with {num_bytes} bytes of extended headers, above {LARGEST_HEADERS}, as no "
                "archiver writes them; create the archive again"
            )
        fields |= _extended_fields(tape, header)
    if fields.keys() & {"path", "size"}:
        raise tape.damaged(f"the member {fields.get('path', '')} is missing")
    return None


def _member(tape: "Tape", header: tarfile.TarInfo, fields: dict[str, str]) -> Member:
    name, size = fields.get("path", header.name), fields.get("size", str(header.size))
    if len(name) > LONGEST_PATH:
        raise ValueError(f"{tape.label} has a path of {len(name)} characters, above {LONGEST_PATH}; shorten it")
    if header.type == tarfile.GNUTYPE_SPARSE or any(field.startswith("GNU.sparse.") for field in fields):
        raise ValueError(
            f"{tape.label}, {name} is sparse: its holes are zeros that the archive does not hold; create the archive "
            "without --sparse"
        )
    if not (size.isascii() and size.isdigit() and len(size) < 20):
        raise tape.damaged(f"{name} has the size {size[:20]}")
    has_content = header.isreg() or header.type not in tarfile.SUPPORTED_TYPES
    return Member(header, name, int(size) if has_content else 0)


def _extended_fields(tape: "Tape", header: tarfile.TarInfo) -> dict[str, str]:
    """Return what an extended header says about the next member."""
    content = tape.read_exactly(header.size)
    tape.read_exactly(-header.size % tarfile.BLOCKSIZE)
    if header.type not in _PAX:
        return {"path": _text(content.rstrip(b"\0"))} if header.type == tarfile.GNUTYPE_LONGNAME else {}
    fields = _pax_fields(tape, content)
    if header.type == tarfile.XGLTYPE and fields.keys() & {"path", "size"}:
        raise tape.damaged("a header for all members gives a path or a size")
    return fields


def _read_header(tape: "Tape") -> tarfile.TarInfo | None:
    """Return the next header; None at the end mark, a block of zeros."""
    block = tape.read_exactly(tarfile.BLOCKSIZE, missing="it ends before its end mark")
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:
        return None
    except (tarfile.HeaderError, ValueError, OverflowError) as error:
        raise tape.damaged(error) from error
    if header.size < 0:
        raise tape.damaged(f"{header.name} has {header.size} bytes")
    return header


def _pax_fields(tape: "Tape", content: bytes) -> dict[str, str]:
    """Return the fields of a pax header, which has records such as b"15 path=a.txt\\n", 15 being the record's bytes."""
    fields, start = {}, 0
    while start < len(content) and content[start]:
        digits, _, _ = content[start : start + 20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = content[start + len(digits) + 1 : start + length]
        if not record.endswith(b"\n") or start + length > len(content):
            raise tape.damaged("a pax header has a record of another length")
        field, _, value = record[:-1].partition(b"=")
        fields[_text(field)] = _text(value)
        start += length
    return fields


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


class Tape:
    """Blocks as a file that is read once, from its start to its end."""

    def __init__(self, label: str, blocks: Iterator[bytes]):
        self.label, self._blocks, self._rest = label, blocks, memoryview(b"")
        self.position = 0

    def read(self, most_bytes: int) -> memoryview:
        """Return at most that many bytes; none at the end."""
        while not self._rest and (block := next(self._blocks, None)) is not None:
            self._rest = memoryview(block)
        taken, self._rest = self._rest[:most_bytes], self._rest[most_bytes:]
        self.position += len(taken)
        return taken

    def read_exactly(self, num_bytes: int, *, missing: str = "unexpected end of data") -> bytes:
        parts = list(self._spans(self.position + num_bytes, missing))
        return b"".join(parts)

    def content(self, end: int) -> Iterator[bytes]:
        """Yield the blocks up to `end`."""
        return map(bytes, self._spans(end, "unexpected end of data"))

    def skip_to(self, end: int) -> None:
        for _ in self._spans(end, "unexpected end of data"):
            pass

    def check_only_zeros_follow(self) -> None:
        mark = self.position - tarfile.BLOCKSIZE
        while block := self.read(BLOCK_BYTES):
            if bytes(block).strip(b"\0"):
                raise self.damaged(f"something follows its end mark at byte {mark}")

    def damaged(self, reason: object) -> DamagedShard:
        return DamagedShard.near(f"byte {self.position} of its archive", self.label, reason)

    def _spans(self, end: int, missing: str) -> Iterator[memoryview]:
        while self.position < end:
            span = self.read(min(BLOCK_BYTES, end - self.position))
            if not span:
                raise self.damaged(missing)
            yield span
