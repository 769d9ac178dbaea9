"""The texts of .parquet files, a few rows at a time, so that a short file of long texts does not fill memory."""

from collections.abc import Callable, Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ColumnChunkMetaData, ParquetFile, RowGroupMetaData

from data_prep.documents.files.decompress import DamagedShard
from data_prep.documents.skipped import SkippedRecords
from data_prep.documents.text_field import column_path, column_texts

ROWS_PER_BATCH = 16  # if rows are whole books of 3 MB, a batch takes 900 MB; larger batches are no faster
BATCH_BYTES = 2**26  # that a batch takes, unless one row takes more
LONGEST_TEXT = 2**28  # bytes of a row; a book has some millions
_DICTIONARY_PAGE = 2


def parquet_rows(
    file: BinaryIO, text_field: str, skipped: SkippedRecords, *, on_read: Callable[[int], None], num_bytes: int
) -> Iterator[str]:
    """Yield the text of each row; `on_read` is called with each batch's share of num_bytes.

    ValueError if the column is missing or not text, or a row too long; DamagedShard if it cannot be decoded.
    """
    row, num_told = 0, 0
    for batch, num_rows in _batches(file, text_field, skipped.label):
        for text in batch:
            if text is None:
                skipped.add(f"row {row}", f"holds null in column {text_field!r}, not text")
            else:
                yield text.replace("\r\n", "\n")
            row += 1
        on_read(num_bytes * row // num_rows - num_told)
        num_told = num_bytes * row // num_rows


def _batches(file: BinaryIO, text_field: str, label: str) -> Iterator[tuple[list[str | None], int]]:
    """Yield (texts of a batch of rows, number of rows in the whole file)."""
    row = 0
    try:
        parquet = ParquetFile(file, buffer_size=2**20, page_checksum_verification=True)
        path = _column_path(label, parquet.schema_arrow, text_field)
        for number in range(parquet.metadata.num_row_groups):
            batch_size = _rows_per_batch(file, parquet.metadata.row_group(number), text_field)
            for batch in parquet.iter_batches(batch_size, row_groups=[number], columns=[text_field]):
                column = column_texts(batch, path)
                _check_lengths(column, label, row)
                yield column.to_pylist(), parquet.metadata.num_rows
                row += len(batch)
    except MemoryError as error:  # pyarrow's own is an ArrowException too
        raise ValueError(
            f"{label} needs more memory near row {row} than there is; write it with shorter rows or pages"
        ) from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DamagedShard.near(f"row {row}", label, error) from error


def _column_path(label: str, schema: pa.Schema, text_field: str) -> list[str]:
    try:
        return column_path(schema, text_field)
    except ValueError as error:
        raise ValueError(f"{label} {error}") from None


def _check_lengths(column: pa.Array, label: str, row: int) -> None:
    """Refuse a text that is too long, before it is decoded."""
    if column.nbytes <= LONGEST_TEXT:
        return
    lengths = pc.binary_length(column).to_pylist()
    for number, length in enumerate(lengths, start=row):
        if (length or 0) > LONGEST_TEXT:
            raise ValueError(
                f"{label}, row {number} has a text of {length} bytes, above {LONGEST_TEXT}; divide or remove it"
            )


def _rows_per_batch(file: BinaryIO, group: RowGroupMetaData, text_field: str) -> int:
    """Return how many rows of the group take at most BATCH_BYTES, if its metadata can tell; at least one."""
    columns = [group.column(number) for number in range(group.num_columns)]
    longest = [_bytes_per_row(file, column) for column in columns if column.path_in_schema == text_field]
    return min(ROWS_PER_BATCH, max(1, BATCH_BYTES // max(longest, default=1)))


def _bytes_per_row(file: BinaryIO, column: ColumnChunkMetaData) -> int:
    """Return the bytes of the longest text if rows may repeat earlier ones, or else the mean."""
    if any(encoding.startswith("DELTA_BYTE") for encoding in column.encodings):  # a row repeats the start of the last
        return max(1, column.total_uncompressed_size)
    mean = column.total_uncompressed_size // max(1, column.num_values)
    return max(1, mean, _dictionary_bytes(file, column))


def _dictionary_bytes(file: BinaryIO, column: ColumnChunkMetaData) -> int:
    """Return the decompressed size of the column's dictionary, which its page names; 0 if it begins with none."""
    begin = min(column.dictionary_page_offset or column.data_page_offset, column.data_page_offset)
    file.seek(max(0, begin))
    header = file.read(16)  # Thrift's compact protocol: 0x15 and a varint, twice, are the kind and the size
    kind, rest = _varint(header)
    return _varint(rest)[0] if kind == _DICTIONARY_PAGE else 0


def _varint(content: bytes) -> tuple[int, bytes]:
    """Return the field of type i32 that begins `content`, and what follows it; 0 if there is none."""
    value = 0
    for index, byte in enumerate(content[1:6]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return (value >> 1, content[index + 2 :]) if content[0] == 0x15 else (0, b"")
    return 0, b""
