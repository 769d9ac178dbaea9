"""Read the documents of a .parquet shard: one per row, in one column of text."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow.parquet import ParquetFile

from data_prep.decompress import DamagedShard

ROWS_PER_BATCH = 256


def parquet_documents(path: Path, text_field: str, on_read: Callable[[int], None]) -> Iterator[str]:
    """Yield each row's text; ValueError where there is none, DamagedShard for what cannot be decoded.

    `on_read` is told the share of the file's bytes that each batch of rows stands for.
    """
    row, size = 0, path.stat().st_size
    for batch, num_rows in _batches(path, text_field):
        for text in batch:
            if text is None:
                raise ValueError(f"{path}, row {row} has no text in column {text_field!r}; fill or remove the row")
            yield text
            row += 1
        on_read(size * len(batch) // num_rows)


def _batches(path: Path, text_field: str) -> Iterator[tuple[list[str | None], int]]:
    """Yield batches of texts, each with the number of rows of the whole file."""
    row = 0
    with open(path, "rb") as file:
        try:
            parquet = ParquetFile(file, buffer_size=2**20, page_checksum_verification=True)
            _check_column(path, parquet.schema_arrow, text_field)
            for batch in parquet.iter_batches(batch_size=ROWS_PER_BATCH, columns=[text_field]):
                yield batch.column(0).to_pylist(), parquet.metadata.num_rows
                row += len(batch)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DamagedShard.near(f"row {row}", path, error) from error


def _check_column(path: Path, schema: pa.Schema, text_field: str) -> None:
    if text_field not in schema.names:
        raise ValueError(
            f"{path} has no column {text_field!r} (it has {', '.join(schema.names)}); choose with --text_field"
        )
    kind = schema.field(text_field).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ValueError(f"{path}: column {text_field!r} holds {kind}, not text; choose with --text_field")
