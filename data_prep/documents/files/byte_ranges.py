"""Byte ranges of a plain .txt or .jsonl: each reads whole lines or documents, and together they read each byte once.

A border at any byte moves to the next place where a line begins or, if blank lines end documents, to the end of the
first blank line that begins at or after it. This place depends on the file alone, so neighbouring ranges agree on it.
"""

import codecs
import sys
from pathlib import Path
from typing import BinaryIO

from data_prep.documents.files.read_blocks import BLOCK_BYTES
from data_prep.documents.files.remote_files import RemoteFile


def divide_bytes(num_bytes: int, range_bytes: int) -> list[tuple[int, int]]:
    """Return (start, end) of the fewest ranges of at most `range_bytes`, equal in size; at least one."""
    num_ranges = max(1, -(-num_bytes // range_bytes))
    borders = [num_bytes * number // num_ranges for number in range(num_ranges + 1)]
    return list(zip(borders[:-1], borders[1:], strict=True))


def owned_span(
    path: Path | RemoteFile, start: int, end: int | None, *, after_blank_line: bool
) -> tuple[int, int | None]:
    """Return the first byte that the range start..end reads, and the byte after its last; None is the file's end.

    Reads no further than to the first border after `end`, in constant memory.
    """
    stop = sys.maxsize if end is None else end
    with path.open("rb") as file:
        first = _border(file, start, stop, after_blank_line=after_blank_line)
        if first is None or end is None:
            return (0, 0) if first is None else (first, None)
        return first, _border(file, end, sys.maxsize, after_blank_line=after_blank_line)


def _border(file: BinaryIO, position: int, stop: int, *, after_blank_line: bool) -> int | None:
    """Return the place to which a border at `position` moves; None if no such line begins before `stop`."""
    if position == 0:
        return 0
    file.seek(position - 1)
    _skip_line(file)
    start_of_line = file.tell()
    if not after_blank_line:
        return start_of_line if start_of_line < stop else None
    while start_of_line < stop:
        if _skip_line(file):
            return file.tell()
        start_of_line = file.tell()
    return None


def _skip_line(file: BinaryIO) -> bool:
    """Move to the next line; return whether this one is blank, as the end of the file is."""
    decoder, is_blank = codecs.getincrementaldecoder("utf-8")(), True
    while part := file.readline(BLOCK_BYTES):
        is_blank = is_blank and _is_blank(decoder, part)
        if part.endswith(b"\n"):
            break
    return is_blank


def _is_blank(decoder: codecs.IncrementalDecoder, part: bytes) -> bool:
    try:
        return not decoder.decode(part).strip()
    except UnicodeDecodeError:  # a reader skips or refuses the line, so it ends no document
        return False
