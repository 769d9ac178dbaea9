"""Every format yields the same documents, and nothing that is missing or damaged goes unnoticed."""

import gzip
import lzma
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest

from data_prep.readers import DamagedShard, find_inputs, read_documents
from tests.data_prep.raw_shards import COMPRESSORS, FORMATS, write_raw_shard

COMPRESSED = [".gz", ".xz", ".zst"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_holds_the_same_documents(tmp_path, suffix, documents):
    assert list(read_documents(write_raw_shard(tmp_path / f"shard{suffix}", documents))) == documents


@pytest.mark.parametrize("suffix", FORMATS)
def test_on_read_is_told_of_every_byte_of_the_file(tmp_path, suffix, documents):
    path, read = write_raw_shard(tmp_path / f"shard{suffix}", documents), []
    list(read_documents(path, on_read=read.append))
    assert sum(read) == path.stat().st_size


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_streams_in_a_row_are_one_text(tmp_path, suffix):
    compress, path = COMPRESSORS[suffix], tmp_path / f"shard.txt{suffix}"
    path.write_bytes(compress(b"one\n\ntw") + compress(b"") + compress(b"o\n"))
    assert list(read_documents(path)) == ["one", "two"]


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("num_missing", [1, 9, 60])
def test_a_truncated_file_is_refused_with_its_name_and_length(tmp_path, suffix, num_missing):
    path = write_raw_shard(tmp_path / f"shard.txt{suffix}", [f"document {i * i}" for i in range(500)])
    path.write_bytes(path.read_bytes()[:-num_missing])
    with pytest.raises(
        DamagedShard, match=f"shard.txt{suffix} is damaged near byte {path.stat().st_size}: the file ends"
    ):
        list(read_documents(path))


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_truncated_second_stream_is_refused(tmp_path, suffix):
    compress, path = COMPRESSORS[suffix], tmp_path / f"shard.txt{suffix}"
    path.write_bytes(compress(b"one\n\n") + compress(b"two\n")[:-1])
    with pytest.raises(DamagedShard, match="the file ends before its content does"):
        list(read_documents(path))


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("content", [b"", b"\0" * 64])
def test_an_empty_or_zeroed_compressed_file_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"shard.txt{suffix}"
    path.write_bytes(content)
    with pytest.raises(DamagedShard, match="near byte 0"):
        list(read_documents(path))


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_flipped_byte_is_refused(tmp_path, suffix):
    path = write_raw_shard(tmp_path / f"shard.txt{suffix}", [f"document {i * i}" for i in range(500)])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(DamagedShard, match=f"shard.txt{suffix} is damaged near byte"):
        list(read_documents(path))


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_garbage_after_a_stream_is_refused(tmp_path, suffix):
    path = tmp_path / f"shard.txt{suffix}"
    path.write_bytes(COMPRESSORS[suffix](b"one\n") + b"not compressed")
    with pytest.raises(DamagedShard):
        list(read_documents(path))


def test_the_padding_that_xz_allows_is_skipped(tmp_path):
    path = tmp_path / "shard.txt.xz"
    path.write_bytes(lzma.compress(b"one\n\n") + bytes(4) + lzma.compress(b"two\n") + bytes(8))
    assert list(read_documents(path)) == ["one", "two"]


def test_invalid_utf8_is_refused_with_its_place_in_the_text(tmp_path):
    path = tmp_path / "shard.txt.gz"
    path.write_bytes(gzip.compress("é\r\n".encode() + b"ab\xff\n"))
    with pytest.raises(DamagedShard, match=r"shard.txt.gz is damaged near byte 6 of its text: invalid UTF-8"):
        list(read_documents(path))


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
    assert list(read_documents(path)) == ["one\ntwo", "three"]


def test_line_rule_makes_every_line_a_document(tmp_path):
    path = tmp_path / "shard.txt"
    path.write_bytes(b"one\r\ntwo\n\nthree")
    assert list(read_documents(path, document_rule="line")) == ["one", "two", "three"]


def test_an_unknown_document_rule_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="'page' is not one of auto, blank_line, line"):
        read_documents(tmp_path / "shard.txt", document_rule="page")


def test_a_line_longer_than_a_block_stays_whole(tmp_path):
    document = "".join(str(i) for i in range(100_000))
    assert list(read_documents(write_raw_shard(tmp_path / "shard.txt.xz", [document, "end"]))) == [document, "end"]


def test_line_ends_within_json_become_lf(tmp_path):
    assert list(read_documents(write_raw_shard(tmp_path / "shard.jsonl", ["one\r\ntwo"]))) == ["one\ntwo"]


def test_empty_documents_are_left_out(tmp_path):
    assert list(read_documents(write_raw_shard(tmp_path / "shard.jsonl", ["one", "", "two"]))) == ["one", "two"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "cut', "is not JSON"),
        ('{"body": "b", "id": 1}', r"has no text in field 'text' \(it has body, id\)"),
        ('{"text": null}', "has no text in field 'text'"),
        ('["text"]', r"has no text in field 'text' \(it has a list\)"),
    ],
)
def test_a_bad_json_line_is_named_with_its_number(tmp_path, line, reason):
    path = tmp_path / "shard.jsonl"
    path.write_text('{"text": "good"}\n\n' + line + "\n")
    with pytest.raises(ValueError, match=f"shard.jsonl, line 3 {reason}"):
        list(read_documents(path))


def test_text_field_chooses_the_field(tmp_path):
    path = tmp_path / "shard.jsonl"
    path.write_text('{"text": "no", "body": "yes"}\n')
    assert list(read_documents(path, text_field="body")) == ["yes"]


def test_a_parquet_file_without_the_column_is_refused(tmp_path):
    path = write_raw_shard(tmp_path / "shard.parquet", ["one"])
    with pytest.raises(ValueError, match=r"no column 'body' \(it has text\)"):
        list(read_documents(path, text_field="body"))


def test_a_parquet_column_of_numbers_is_refused(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": [1, 2]}), tmp_path / "shard.parquet")
    with pytest.raises(ValueError, match="column 'text' holds int64, not text"):
        list(read_documents(tmp_path / "shard.parquet"))


def test_a_parquet_row_without_text_is_named(tmp_path):
    path = write_raw_shard(tmp_path / "shard.parquet", ["one", None])
    with pytest.raises(ValueError, match="shard.parquet, row 1 has no text in column 'text'"):
        list(read_documents(path))


def test_a_truncated_parquet_file_is_refused(tmp_path):
    path = write_raw_shard(tmp_path / "shard.parquet", ["one", "two"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamagedShard, match="shard.parquet is damaged near row 0"):
        list(read_documents(path))


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = write_raw_shard(tmp_path / "shard.txt.gz", [" ".join(str(i * j) for j in range(200)) for i in range(4000)])
    tracemalloc.start()
    num_characters = sum(len(document) for document in read_documents(path))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num_characters > 4_000_000
    assert peak_bytes < 500_000


def test_inputs_are_sorted_by_relative_path_and_found_once(tmp_path, documents):
    for name in ("b/2.txt", "b/10.jsonl.zst", "a.parquet", ".hidden/c.txt"):
        write_raw_shard(tmp_path / name, documents)
    found = find_inputs([tmp_path / "b" / "2.txt", tmp_path])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["b/2.txt", "a.parquet", "b/10.jsonl.zst"]


def test_a_missing_input_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.txt does not exist"):
        find_inputs([tmp_path / "nowhere.txt"])


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no files"):
        find_inputs([tmp_path])


def test_an_unknown_suffix_is_named_with_the_supported_ones(tmp_path):
    (tmp_path / "notes.docx").write_text("text")
    with pytest.raises(ValueError, match=r"notes.docx has no supported suffix \(.txt, .txt.gz, .*parquet\)"):
        find_inputs([tmp_path])
