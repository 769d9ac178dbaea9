"""Rows of .jsonl become documents, alone or grouped, and a row without text is named."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from data_prep.documents.rows import json_rows
from data_prep.documents.skipped import SkippedRecords
from tests.data_prep.documents.raw_shards import (
    COMPRESSED,
    COMPRESSORS,
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
        ('{"text": null}', "holds null in field 'text', not text; choose"),
        ('{"text": 1}', "holds a number in field 'text', not text"),
        ('{"text": {"a": "b"}}', "holds an object in field 'text', not text"),
        (
            '[{"text": "a"}]',
            "is a list, not an object; write one object per line, as `jq -c '.\\[\\]'` does with an array",
        ),
        ("[", r"is not JSON: .*\(is it one value over several lines\? `jq -c` writes one per line\)"),
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


@pytest.mark.parametrize("name", ["shard.jsonl", "shard.parquet"])
def test_rows_may_be_lines_with_blank_rows_between_documents(tmp_path, name):
    path = write_raw_shard(tmp_path / name, ["one\n", "two\n", "\n", "three\n", " ", "", "four"])
    assert documents_of(path, document_rule="blank_line") == ["one\ntwo", "three", "four"]


def test_a_row_may_have_long_numbers_and_of_equal_fields_the_last_counts(tmp_path):
    path = tmp_path / "shard.jsonl"
    path.write_text('{"text": "one", "id": %s}\n{"text": "no", "text": "two"}\n' % ("9" * 5000))
    assert documents_of(path) == ["one", "two"]


def test_a_dotted_field_leads_into_nested_ones_unless_a_field_has_that_name(tmp_path):
    rows = [{"meta": {"text": "one"}}, {"meta.text": "two", "meta": {"text": "no"}}]
    (tmp_path / "shard.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert documents_of(tmp_path / "shard.jsonl", text_field="meta.text") == ["one", "two"]
    with pytest.raises(ValueError, match="line 1 .* has no text in field 'meta.body'"):
        documents_of(tmp_path / "shard.jsonl", text_field="meta.body")
    table = pyarrow.table({"id": [1, 2], "meta": [{"a": {"text": "one"}}, {"a": {"text": "two"}}]})
    pyarrow.parquet.write_table(table, tmp_path / "nested.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"meta.a.text": ["one", "two"]}), tmp_path / "flat.parquet")
    for name in ("nested.parquet", "flat.parquet"):
        assert documents_of(tmp_path / name, text_field="meta.a.text") == ["one", "two"]
    for field, problem in (
        ("meta.b.text", "'meta' holds struct"),
        ("meta.a", "holds struct.*not text"),
        ("x.y", "it has"),
    ):
        with pytest.raises(ValueError, match=f"nested.parquet .*{problem}"):
            documents_of(tmp_path / "nested.parquet", text_field=field)


def test_a_line_of_json_without_end_is_refused_before_it_fills_memory(monkeypatch):
    monkeypatch.setattr("data_prep.documents.rows.LONGEST_ROW", 2**20)
    with pytest.raises(ValueError, match="shard has a line of more than 1048576 bytes"):
        list(json_rows(iter([b" " * 2**14] * 2**26), "text", SkippedRecords("shard")))
