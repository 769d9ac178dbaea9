"""Every format yields the same documents by the same rules, and an unreadable record is named or skipped."""

import gzip

import pytest

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.files.decompress import DamagedShard
from data_prep.documents.raw_shards import RawFile, read_documents
from data_prep.documents.readers import Reader
from data_prep.documents.skipped import SkippedRecords
from tests.data_prep.documents.raw_shards import (
    FORMATS,
    count_characters,
    documents_of,
    parquet,
    write_raw_shard,
    write_tar,
)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_holds_the_same_documents(tmp_path, suffix, documents):
    assert documents_of(write_raw_shard(tmp_path / f"shard{suffix}", documents)) == documents


@pytest.mark.parametrize("suffix", FORMATS)
def test_on_read_counts_every_byte_of_the_file(tmp_path, suffix, documents):
    path, read = write_raw_shard(tmp_path / f"shard{suffix}", documents), []
    list(Reader(DocumentRules()).file_parts(path, SkippedRecords("shard"), read.append))
    assert sum(read) == path.stat().st_size


def test_invalid_utf8_is_refused_with_its_place_in_the_text(tmp_path):
    path = tmp_path / "shard.txt.gz"
    path.write_bytes(gzip.compress("é\r\n".encode() + b"ab\xff\n"))
    with pytest.raises(
        ValueError, match=r"shard.txt.gz, byte 6 of its text is not UTF-8 \(invalid start byte\); repair"
    ):
        documents_of(path)


@pytest.mark.parametrize(
    "content",
    [
        "one\ntwo\n\nthree\n",
        "one\ntwo\n\nthree",
        "\n\none\ntwo\n\n \t\n\nthree\n\n\n",
        "\ufeffone\r\ntwo\r\n\r\nthree\r\n",
    ],
    ids=["plain", "no last newline", "many blank lines", "BOM and CRLF"],
)
def test_a_blank_line_ends_a_document(tmp_path, content):
    path = tmp_path / "shard.txt"
    path.write_bytes(content.encode())
    assert documents_of(path) == ["one\ntwo", "three"]


def test_the_line_rule_makes_every_line_a_document(tmp_path):
    path = tmp_path / "shard.txt"
    path.write_bytes(b"one\r\ntwo\n\nthree")
    assert documents_of(path, document_rule="line") == ["one", "two", "three"]


def test_an_unknown_document_rule_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="'page' is not one of auto, blank_line, line"):
        documents_of(tmp_path / "shard.txt", document_rule="page")


def test_a_line_longer_than_a_block_stays_whole(tmp_path):
    document = "".join(str(i) for i in range(100_000))
    assert documents_of(write_raw_shard(tmp_path / "shard.txt.xz", [document, "end"])) == [document, "end"]


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = write_raw_shard(tmp_path / "shard.txt.gz", [" ".join(str(i * j) for j in range(200)) for i in range(4000)])
    num_characters, peak_bytes = count_characters(RawFile(path))
    assert num_characters > 4_000_000
    assert peak_bytes < 500_000


LINES = ["one", "", "two", "three", "four", "five"]


@pytest.mark.parametrize("name", ["shard.txt", "shard.jsonl", "shard.parquet"])
def test_lines_per_document_counts_lines_or_rows_that_are_not_empty(tmp_path, name):
    path = tmp_path / name
    path.write_text("\n".join(LINES)) if name == "shard.txt" else write_raw_shard(path, LINES)
    assert documents_of(path, document_rule="line", lines_per_document=2) == ["one\ntwo", "three\nfour", "five"]


@pytest.mark.parametrize("rule", ["blank_line", "line"])
@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 5, 8, 1000])
def test_documents_do_not_depend_on_the_length_of_chunks(tmp_path, monkeypatch, rule, chunk_bytes):
    monkeypatch.setattr("data_prep.documents.text_chunks.CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr("data_prep.documents.files.read_blocks.BLOCK_BYTES", 3)
    path = tmp_path / "shard.txt"
    path.write_bytes("\ufeff\n é one\r\n\n\ntwo 🙂\n thr\ree\r\n\t\r\nfour\n\n".encode())
    expected = {
        "blank_line": [" é one", "two 🙂\n thr\ree", "four"],
        "line": [" é one", "two 🙂", " thr\ree", "\t", "four"],
    }
    assert documents_of(path, document_rule=rule) == expected[rule]


def test_unreadable_records_are_skipped_and_listed_up_to_a_number(tmp_path):
    path = write_tar(
        tmp_path / "shards.tar",
        {
            "a.txt": b"one\nb\xffd\ntwo",
            "b.jsonl": b'{"text": "three"}\n{"text": 4}\nfive',
            "c.parquet": parquet([None, "six"]),
        },
    )
    skipped = SkippedRecords("shards.tar", max_bad_records=4)
    parts = [text for text, _ in Reader(DocumentRules()).file_parts(path, skipped, lambda num_bytes: None)]
    assert parts == ["one\ntwo", "", "three", "six"]
    assert [record[:50] for record in skipped.records] == [
        "a.txt, byte 5 of its text is not UTF-8 (invalid st",
        "b.jsonl, line 2 (byte 18 of its text) holds a numb",
        "b.jsonl, line 3 (byte 30 of its text) is not JSON:",
        "c.parquet, row 0 holds null in column 'text', not ",
    ]
    with pytest.raises(
        ValueError, match="line 3 .* is not JSON.* after 2 skipped records; repair or remove it, or raise --max_bad_re"
    ):
        list(read_documents(RawFile(path), max_bad_records=2))


def test_a_line_longer_than_a_chunk_is_refused_if_it_is_not_utf8(tmp_path):
    path = tmp_path / "shard.txt"
    path.write_bytes(b"a" * 100_000 + b"\xff\nnext\n")
    with pytest.raises(DamagedShard, match="near byte 100000 of its text: invalid start byte"):
        list(read_documents(RawFile(path), max_bad_records=9))


def test_a_compressed_parquet_file_of_another_format_is_refused_before_it_is_written_to_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "shard.parquet.gz"
    path.write_bytes(gzip.compress(bytes(10**7)))
    written = []
    monkeypatch.setattr("tempfile.SpooledTemporaryFile.write", lambda _, block: written.append(block))
    with pytest.raises(DamagedShard, match="shard.parquet.gz is damaged near byte 0 of its content: it is no parquet"):
        documents_of(path)
    assert not written


def test_a_compressed_parquet_file_does_not_fill_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "shard.parquet.gz"
    path.write_bytes(gzip.compress(parquet(["one"])))
    assert documents_of(path) == ["one"]
    monkeypatch.setattr("data_prep.documents.readers.MOST_BYTES_IN_MEMORY", 10)
    assert documents_of(path) == ["one"]
    monkeypatch.setattr("data_prep.documents.readers.SPARED_BYTES", 2**63)
    with pytest.raises(ValueError, match="shard.parquet.gz is written to .* bytes left after .* of it; extract it"):
        documents_of(path)
