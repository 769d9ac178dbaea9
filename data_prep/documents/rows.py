"""Rows: the texts of .jsonl files, and the grouping of rows into documents."""

import codecs
import json
from collections.abc import Iterator

from data_prep.documents.document_rules import DocumentRules, Parts
from data_prep.documents.skipped import SkippedRecords
from data_prep.documents.text_chunks import cut_lines
from data_prep.documents.text_field import value_of, why_no_text
from data_prep.documents.wikitext import group_articles

LONGEST_ROW = 2**28  # bytes of a line of JSON; a book has some millions
_DECODER = json.JSONDecoder(parse_int=float)  # Python refuses integers of more than 4,300 digits
_STARTS = (b"[", b"{", b"[{")  # first lines of a value that continues


def json_rows(blocks: Iterator[bytes], text_field: str, skipped: SkippedRecords, *, offset: int = 0) -> Iterator[str]:
    """Yield the text of each line that is not blank; memory holds one line.

    offset: the position of the first block in its file; the numbers of lines are known only if it is 0.
    """
    starts_file = offset == 0
    for number, line in enumerate(_whole_lines(blocks, skipped.label), start=1):
        byte = f"byte {offset} of its text"
        text = _json_text(line, text_field, skipped, place=f"line {number} ({byte})" if starts_file else byte)
        if text is not None:
            yield text.replace("\r\n", "\n")
        offset += len(line)


def group_rows(rows: Iterator[str], rules: DocumentRules) -> Parts:
    """Yield (text, whether it ends its document) according to `rules`."""
    if rules.document_rule == "wikitext":
        return group_articles(rows, rules.blank_line)
    if rules.document_rule == "blank_line":
        return _between_blank_rows(rows, rules.blank_line)
    if rules.lines_per_document > 1:
        return _every_n_rows(rows, rules.lines_per_document)
    return ((row, True) for row in rows)


def _between_blank_rows(rows: Iterator[str], blank_line: str) -> Parts:
    """Rows may still end in the newline that they had as lines."""
    is_open = False
    for row in rows:
        line = row.removesuffix("\n")
        if line.strip():
            yield ("\n" + line if is_open else line), False
            is_open = True
        elif is_open:
            yield blank_line, True
            is_open = False


def _every_n_rows(rows: Iterator[str], num_rows: int) -> Parts:
    filled = 0  # rows in the current document
    for row in rows:
        line = row.removesuffix("\n")
        if line:
            yield ("\n" + line if filled else line), filled + 1 == num_rows
            filled = (filled + 1) % num_rows


def _whole_lines(blocks: Iterator[bytes], label: str) -> Iterator[bytes]:
    """Yield each line with its newline; ValueError for one that would fill memory."""
    parts: list[bytes] = []  # of an unfinished line
    num_bytes = 0
    for raw in cut_lines(blocks):
        if not raw.endswith(b"\n"):
            parts.append(raw)
            num_bytes += len(raw)
            if num_bytes > LONGEST_ROW:
                raise ValueError(f"{label} has a line of more than {LONGEST_ROW} bytes; divide or remove it")
            continue
        first, *others = raw.removesuffix(b"\n").split(b"\n")
        yield b"".join([*parts, first, b"\n"])
        for line in others:
            yield line + b"\n"
        parts, num_bytes = [], 0


def _json_text(line: bytes, text_field: str, skipped: SkippedRecords, *, place: str) -> str | None:
    """Return the text of a line; None for a blank line and for one that is added to `skipped`."""
    if not line.strip(codecs.BOM_UTF8 + b" \t\r\n"):
        return None
    try:
        row = _DECODER.decode(line.removeprefix(codecs.BOM_UTF8).decode())
    except (ValueError, RecursionError) as error:
        starts = " (is it one value over several lines? `jq -c` writes one per line)" if line.strip() in _STARTS else ""
        return skipped.add(place, f"is not JSON: {error}{starts}")
    text = value_of(row, text_field)
    return text if isinstance(text, str) else skipped.add(place, why_no_text(row, text_field))
