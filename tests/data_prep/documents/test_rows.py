"""Rows of .jsonl and .parquet become documents, and a row or column without text is named."""

import pyarrow
import pyarrow.parquet
import pytest

from data_prep.documents.files.decompress import DamagedShard
from data_prep.documents.raw_shards import RawFile
from tests.data_prep.documents.raw_shards import (
    COMPRESSED,
    COMPRESSORS,
    count_characters,
    documents_of,
    jsonl,
    write_raw_shard,
)


@pytest.mark.parametrize("suffix", ["", *COMPRESSED])
def test_a_long_last_row_needs_no_newline(tmp_path, suffix):
    path, document = tmp_path / f"shard.jsonl{suffix}", "a" * (2**15 - len('{"text": ""}'))  # it fills a chunk
    path.write_bytes(COMPRESSORS[suffix](jsonl([document]).removesuffix("\n").encode()))
    assert documents_of(path) == [document]


def test_line_ends_within_json_become_lf(tmp_path):
    assert documents_of(write_raw_shard(tmp_path / "shard.jsonl", ["one\r\ntwo"])) == ["one\ntwo"]


def test_empty_documents_are_skipped(tmp_path):
    assert documents_of(write_raw_shard(tmp_path / "shard.jsonl", ["one", "", "two"])) == ["one", "two"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "cut', "is not JSON"),
        ('{"body": "b", "id": 1}', r"has no text in field 'text' \(it has body, id; choose"),
        ('{"text": null}', "has no text in field 'text'"),
        ('["text"]', r"has no text in field 'text' \(it has a list; choose"),
    ],
)
def test_a_bad_json_line_is_named_with_its_number(tmp_path, line, reason):
    path = tmp_path / "shard.jsonl"
    path.write_text('{"text": "good"}\n\n' + line + "\n")
    with pytest.raises(ValueError, match=rf"shard.jsonl, line 3 \(byte 18 of its text\) {reason}"):
        documents_of(path)


def test_text_field_chooses_the_field(tmp_path):
    path = tmp_path / "shard.jsonl"
    path.write_text('{"text": "no", "body": "yes"}\n')
    assert documents_of(path, text_field="body") == ["yes"]


def test_a_parquet_file_without_the_column_is_refused(tmp_path):
    path = write_raw_shard(tmp_path / "shard.parquet", ["one"])
    with pytest.raises(ValueError, match=r"no column 'body' \(it has text\)"):
        documents_of(path, text_field="body")


def test_a_parquet_column_of_numbers_is_refused(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": [1, 2]}), tmp_path / "shard.parquet")
    with pytest.raises(ValueError, match="column 'text' holds int64, not text"):
        documents_of(tmp_path / "shard.parquet")


def test_a_parquet_row_without_text_is_named(tmp_path):
    path = write_raw_shard(tmp_path / "shard.parquet", ["one", None])
    with pytest.raises(ValueError, match="shard.parquet, row 1 has no text in column 'text'"):
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


@pytest.mark.parametrize("name", ["shard.jsonl", "shard.parquet"])
def test_rows_may_be_lines_with_blank_rows_between_documents(tmp_path, name):
    path = write_raw_shard(tmp_path / name, ["one\n", "two\n", "\n", "three\n", " ", "", "four"])
    assert documents_of(path, document_rule="blank_line") == ["one\ntwo", "three", "four"]
