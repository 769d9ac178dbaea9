"""Rows of .parquet become documents, a row or column without text is named, and memory holds few of them."""

import io

import pyarrow
import pyarrow.parquet
import pytest

from data_prep.documents import parquet_rows as module
from data_prep.documents.files.decompress import DamagedShard
from data_prep.documents.parquet_rows import parquet_rows
from data_prep.documents.raw_shards import RawFile
from data_prep.documents.skipped import SkippedRecords
from tests.data_prep.documents.raw_shards import count_characters, documents_of, write_raw_shard
from tests.data_prep.hostile.archive_bytes import parquet_of


def test_a_parquet_file_without_the_column_is_refused(tmp_path):
    path = write_raw_shard(tmp_path / "shard.parquet", ["one"])
    with pytest.raises(ValueError, match=r"no column 'body' \(it has text\)"):
        documents_of(path, text_field="body")


def test_a_parquet_column_of_numbers_is_refused(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": [1, 2]}), tmp_path / "shard.parquet")
    with pytest.raises(ValueError, match="shard.parquet holds int64, not text, in column 'text'"):
        documents_of(tmp_path / "shard.parquet")


def test_a_parquet_row_without_text_is_named(tmp_path):
    path = write_raw_shard(tmp_path / "shard.parquet", ["one", None])
    with pytest.raises(ValueError, match="shard.parquet, row 1 holds null in column 'text', not text"):
        documents_of(path)


def test_a_truncated_parquet_file_is_refused(tmp_path):
    path = write_raw_shard(tmp_path / "shard.parquet", ["one", "two"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamagedShard, match="shard.parquet is damaged near row 0"):
        documents_of(path)


def test_memory_holds_few_rows_of_parquet(tmp_path):
    path = write_raw_shard(tmp_path / "shard.parquet", [f"{number} " * 50_000 for number in range(200)])
    num_characters, peak_bytes = count_characters(RawFile(path))
    assert num_characters > 30_000_000
    assert peak_bytes < 16_000_000


def test_a_row_without_the_field_around_the_text_is_named(tmp_path):
    table = pyarrow.table({"meta": [{"text": "one"}, None]})
    pyarrow.parquet.write_table(table, tmp_path / "shard.parquet")
    with pytest.raises(ValueError, match="row 1 holds null in column 'meta.text'"):
        documents_of(tmp_path / "shard.parquet", text_field="meta.text")


@pytest.mark.parametrize("kind", [pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())])
def test_parquet_may_hold_text_as_pandas_writes_it(tmp_path, kind):
    column = pyarrow.array(["one", "two", "one"]).cast(kind)
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "shard.parquet")
    assert documents_of(tmp_path / "shard.parquet") == ["one", "two", "one"]


@pytest.mark.parametrize(
    ("options", "num_batches"),
    [
        ({}, 8),  # two rows per batch: 16 in all, of 1 MiB each
        ({"use_dictionary": False}, 8),
        ({"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"}, 8),  # a row is the one before it
    ],
)
def test_a_batch_has_fewer_rows_where_a_short_file_has_long_texts(monkeypatch, options, num_batches):
    monkeypatch.setattr(module, "BATCH_BYTES", 2**21 + 2**10)
    content, told = parquet_of("x" * 2**20, 16, **options), []
    rows = parquet_rows(io.BytesIO(content), "text", SkippedRecords("a"), on_read=told.append, num_bytes=len(content))
    assert [len(row) for row in rows] == [2**20] * 16
    assert (len(told), sum(told)) == (num_batches, len(content))


def test_a_text_that_is_too_long_is_named(monkeypatch):
    monkeypatch.setattr(module, "LONGEST_TEXT", 2**20)
    file = io.BytesIO(parquet_of("x" * (2**20 + 1), 1))
    with pytest.raises(ValueError, match="^a, row 0 has a text of 1048577 bytes, above 1048576; divide or remove it"):
        list(parquet_rows(file, "text", SkippedRecords("a"), on_read=print, num_bytes=0))


@pytest.mark.parametrize("error", [MemoryError(), pyarrow.ArrowMemoryError("malloc")])
def test_a_row_that_memory_has_no_room_for_is_named(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(module, "column_texts", fail)
    with pytest.raises(ValueError, match="^a needs more memory near row 0 than there is; write it with shorter rows"):
        list(parquet_rows(io.BytesIO(parquet_of("x", 1)), "text", SkippedRecords("a"), on_read=print, num_bytes=0))
