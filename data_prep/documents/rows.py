"""Rows: the texts of .jsonl and .parquet files, and their grouping into documents."""

import codecs
import json
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pyarrow as pa
from pyarrow.parquet import ParquetFile

from data_prep.documents.decompress import DamagedShard
from data_prep.documents.document_rules import DocumentRules, Parts
from data_prep.documents.skipped import SkippedRecords
from data_prep.documents.text_chunks import cut_lines

ROWS_PER_BATCH = 16  # if rows are whole books of 3 MB, a batch takes 900 MB; larger batches are no faster


def json_rows(blocks: Iterator[bytes], text_field: str, skipped: SkippedRecords, *, offset: int = 0) -> Iterator[str]:
    """Yield the text of each line that is not blank; memory holds one line.

    offset: the position of the first block in its file; the numbers of lines are known only if it is 0.
    """
    starts_file = offset == 0
    for number, line in enumerate(_whole_lines(blocks), start=1):
        byte = f"byte {offset} of its text"
        text = _json_text(line, text_field, skipped, place=f"line {number} ({byte})" if starts_file else byte)
        if text is not None:
            yield text.replace("\r\n", "\n")
        offset += len(line)


def parquet_rows(
    file: BinaryIO, text_field: str, skipped: SkippedRecords, *, on_read: Callable[[int], None], num_bytes: int
) -> Iterator[str]:
    """Yield the text of each row; `on_read` is called with each batch's share of num_bytes.

    ValueError if the column is missing or not text, DamagedShard if it cannot be decoded.
    """
    row, num_told = 0, 0
    for batch, num_rows in _parquet_batches(file, text_field, skipped.label):
        for text in batch:
            if text is None:
                skipped.add(f"row {row}", f"has no text in column {text_field!r}")
            else:
                yield text.replace("\r\n", "\n")
            row += 1
        on_read(num_bytes * row // num_rows - num_told)
        num_told = num_bytes * row // num_rows


def group_rows(rows: Iterator[str], rules: DocumentRules) -> Parts:
    """Yield (text, whether it ends its document) according to `rules`."""
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


def _whole_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield each line with its newline."""
    parts: list[bytes] = []  # of an unfinished line
    for raw in cut_lines(blocks):
        if not raw.endswith(b"\n"):
            parts.append(raw)
            continue
        first, *others = raw.removesuffix(b"\n").split(b"\n")
        yield b"".join([*parts, first, b"\n"])
        for line in others:
            yield line + b"\n"
        parts = []


def _json_text(line: bytes, text_field: str, skipped: SkippedRecords, *, place: str) -> str | None:
    """Return the text of a line; None for a blank line and for one that is added to `skipped`."""
    if not line.strip(codecs.BOM_UTF8 + b" \t\r\n"):
        return None
    try:
        row = json.loads(line.removeprefix(codecs.BOM_UTF8).decode())
    except (ValueError, RecursionError) as error:
        return skipped.add(place, f"is not JSON: {error}")
    if not isinstance(row, dict) or not isinstance(row.get(text_field), str):
        fields = ", ".join(row) if isinstance(row, dict) else f"a {type(row).__name__}"
        return skipped.add(place, f"has no text in field {text_field!r} (it has {fields}; choose with --text_field)")
    return row[text_field]


def _parquet_batches(file: BinaryIO, text_field: str, label: str) -> Iterator[tuple[list[str | None], int]]:
    """Yield (texts of a batch of rows, number of rows in the whole file)."""
    row = 0
    try:
        parquet = ParquetFile(file, buffer_size=2**20, page_checksum_verification=True)
        _check_column(label, parquet.schema_arrow, text_field)
        for batch in parquet.iter_batches(batch_size=ROWS_PER_BATCH, columns=[text_field]):
            yield batch.column(0).to_pylist(), parquet.metadata.num_rows
            row += len(batch)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DamagedShard.near(f"row {row}", label, error) from error


def _check_column(label: str, schema: pa.Schema, text_field: str) -> None:
    if text_field not in schema.names:
        raise ValueError(
            f"{label} has no column {text_field!r} (it has {', '.join(schema.names)}); choose with --text_field"
        )
    kind = schema.field(text_field).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ValueError(f"{label}: column {text_field!r} holds {kind}, not text; choose with --text_field")
