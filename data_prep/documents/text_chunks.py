"""Decode the bytes of a text file in chunks of whole lines; a line that is not UTF-8 is skipped or refused."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass

from data_prep.documents.files.decompress import DamagedShard
from data_prep.documents.skipped import SkippedRecords

CHUNK_BYTES = 2**15  # with its text and documents 200 KB; longer chunks are no faster


@dataclass(frozen=True)
class Chunk:
    """Whole lines, joined by LF, without a final LF; or a part of a line that continues in the next chunk."""

    text: str
    ends_line: bool


def read_chunks(blocks: Iterator[bytes], skipped: SkippedRecords, *, offset: int = 0) -> Iterator[Chunk]:
    """Yield all text, without a BOM, with LF as line end. Memory does not grow with the length of a line.

    offset: the position of the first block in its file.
    ValueError for a line that is not UTF-8 if `skipped` is full, DamagedShard if such a line is longer than a chunk.
    """
    starts_line = True
    for raw in cut_lines(blocks):
        ends_line = raw.endswith(b"\n")
        content = raw.removeprefix(codecs.BOM_UTF8) if offset == 0 else raw
        start, offset = offset + len(raw) - len(content), offset + len(raw)
        text = _decode(content, skipped, offset=start, is_whole=starts_line and ends_line)
        if text is not None:
            yield Chunk(text, ends_line)
        starts_line = ends_line


def cut_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield whole lines, many at once, or the parts of a longer line; the end of the file ends its last line."""
    pending, starts_line = bytearray(), True
    for block in blocks:
        pending += block
        while len(pending) >= CHUNK_BYTES and (part := _take(pending, starts_line=starts_line)):
            yield part
            starts_line = part.endswith(b"\n")
    if not pending.endswith(b"\n") and (pending or not starts_line):
        pending += b"\n"
    while pending:
        yield _take(pending, starts_line=starts_line)
        starts_line = True


def _take(pending: bytearray, *, starts_line: bool) -> bytes:
    """Remove and return all whole lines, or a part of a line; the last part of a line is never joined with others."""
    end = (pending.rfind(b"\n") if starts_line else pending.find(b"\n")) + 1 or _end_of_whole_characters(pending)
    taken = bytes(pending[:end])
    del pending[:end]
    return taken


def _end_of_whole_characters(pending: bytearray) -> int:
    """Return the end of the bytes to take: a character that is cut off, or a CR that an LF may follow, must wait."""
    for back in range(1, 4):
        lead = pending[-back]
        if lead >= 0xC0:  # the first of 2, 3 (0xE0..) or 4 (0xF0..) bytes
            return len(pending) - back if back < 2 + (lead >= 0xE0) + (lead >= 0xF0) else len(pending)
        if lead < 0x80:
            break
    return len(pending) - pending.endswith(b"\r")


def _decode(raw: bytes, skipped: SkippedRecords, *, offset: int, is_whole: bool) -> str | None:
    """Return the text without the lines that are added to `skipped`; None if nothing is left."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        if not is_whole:
            raise DamagedShard.near(f"byte {offset + error.start} of its text", skipped.label, error.reason) from error
        text = _without_bad_lines(raw, skipped, offset=offset)
    return text.replace("\r\n", "\n").removesuffix("\n") if text else None


def _without_bad_lines(raw: bytes, skipped: SkippedRecords, *, offset: int) -> str:
    good = []
    for line in raw.removesuffix(b"\n").split(b"\n"):
        try:
            good.append(line.decode() + "\n")
        except UnicodeDecodeError as error:
            skipped.add(f"byte {offset + error.start} of its text", f"is not UTF-8 ({error.reason})")
        offset += len(line) + 1
    return "".join(good)
