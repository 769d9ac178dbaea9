"""Every format yields the same documents, and nothing that is missing or damaged goes unnoticed."""

import gzip
import lzma
import tarfile
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest

from data_prep.documents.decompress import DamagedShard, decompressed
from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.raw_shards import RawFile, find_raw_shards, read_documents
from data_prep.documents.readers import read_parts
from data_prep.documents.skipped import SkippedRecords
from tests.data_prep.raw_shards import COMPRESSORS, FORMATS, jsonl, parquet, write_raw_shard, write_tar

COMPRESSED = [".gz", ".xz", ".zst"]


def documents_of(path, **rules):
    return list(read_documents(RawFile(path), DocumentRules(**rules)))


def count_characters(path):
    """Read a whole raw shard; return how many characters it has and how many bytes of memory that took at most."""
    tracemalloc.start()
    num_characters = sum(len(document) for document in read_documents(RawFile(path)))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return num_characters, peak_bytes


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_holds_the_same_documents(tmp_path, suffix, documents):
    assert documents_of(write_raw_shard(tmp_path / f"shard{suffix}", documents)) == documents


@pytest.mark.parametrize("suffix", FORMATS)
def test_on_read_is_told_of_every_byte_of_the_file(tmp_path, suffix, documents):
    path, read = write_raw_shard(tmp_path / f"shard{suffix}", documents), []
    list(read_parts(path, DocumentRules(), SkippedRecords("shard"), read.append))
    assert sum(read) == path.stat().st_size


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_streams_in_a_row_are_one_text(tmp_path, suffix):
    compress, path = COMPRESSORS[suffix], tmp_path / f"shard.txt{suffix}"
    path.write_bytes(compress(b"one\n\ntw") + compress(b"") + compress(b"o\n"))
    assert documents_of(path) == ["one", "two"]


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("num_missing", [1, 9, 60])
def test_a_truncated_file_is_refused_with_its_name_and_length(tmp_path, suffix, num_missing):
    path = write_raw_shard(tmp_path / f"shard.txt{suffix}", [f"document {i * i}" for i in range(500)])
    path.write_bytes(path.read_bytes()[:-num_missing])
    with pytest.raises(
        DamagedShard, match=f"shard.txt{suffix} is damaged near byte {path.stat().st_size}: the file ends"
    ):
        documents_of(path)


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_truncated_second_stream_is_refused(tmp_path, suffix):
    compress, path = COMPRESSORS[suffix], tmp_path / f"shard.txt{suffix}"
    path.write_bytes(compress(b"one\n\n") + compress(b"two\n")[:-1])
    with pytest.raises(DamagedShard, match="the file ends before its content does"):
        documents_of(path)


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("content", [b"", b"\0" * 64])
def test_an_empty_or_zeroed_compressed_file_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"shard.txt{suffix}"
    path.write_bytes(content)
    with pytest.raises(DamagedShard, match="near byte 0"):
        documents_of(path)


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_flipped_byte_is_refused(tmp_path, suffix):
    path = write_raw_shard(tmp_path / f"shard.txt{suffix}", [f"document {i * i}" for i in range(500)])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(DamagedShard, match=f"shard.txt{suffix} is damaged near byte"):
        documents_of(path)


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_garbage_after_a_stream_is_refused(tmp_path, suffix):
    path = tmp_path / f"shard.txt{suffix}"
    path.write_bytes(COMPRESSORS[suffix](b"one\n") + b"not compressed")
    with pytest.raises(DamagedShard):
        documents_of(path)


def test_the_padding_that_xz_allows_is_skipped(tmp_path):
    path = tmp_path / "shard.txt.xz"
    path.write_bytes(lzma.compress(b"one\n\n") + bytes(4) + lzma.compress(b"two\n") + bytes(8))
    assert documents_of(path) == ["one", "two"]


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


def test_line_rule_makes_every_line_a_document(tmp_path):
    path = tmp_path / "shard.txt"
    path.write_bytes(b"one\r\ntwo\n\nthree")
    assert documents_of(path, document_rule="line") == ["one", "two", "three"]


def test_an_unknown_document_rule_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="'page' is not one of auto, blank_line, line"):
        documents_of(tmp_path / "shard.txt", document_rule="page")


def test_a_line_longer_than_a_block_stays_whole(tmp_path):
    document = "".join(str(i) for i in range(100_000))
    assert documents_of(write_raw_shard(tmp_path / "shard.txt.xz", [document, "end"])) == [document, "end"]


@pytest.mark.parametrize("suffix", ["", *COMPRESSED])
def test_a_long_last_row_needs_no_newline(tmp_path, suffix):
    path, document = tmp_path / f"shard.jsonl{suffix}", "a" * (2**15 - len('{"text": ""}'))  # it fills a chunk
    path.write_bytes(COMPRESSORS[suffix](jsonl([document]).removesuffix("\n").encode()))
    assert documents_of(path) == [document]


def test_line_ends_within_json_become_lf(tmp_path):
    assert documents_of(write_raw_shard(tmp_path / "shard.jsonl", ["one\r\ntwo"])) == ["one\ntwo"]


def test_empty_documents_are_left_out(tmp_path):
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


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = write_raw_shard(tmp_path / "shard.txt.gz", [" ".join(str(i * j) for j in range(200)) for i in range(4000)])
    num_characters, peak_bytes = count_characters(path)
    assert num_characters > 4_000_000
    assert peak_bytes < 500_000


def test_memory_holds_few_rows_of_parquet(tmp_path):
    path = write_raw_shard(tmp_path / "shard.parquet", [f"{number} " * 50_000 for number in range(200)])
    num_characters, peak_bytes = count_characters(path)
    assert num_characters > 30_000_000
    assert peak_bytes < 16_000_000


def test_what_repeats_very_much_is_decompressed_in_steps():
    compressed = COMPRESSORS[".zst"](bytes(2**27))
    assert len(compressed) < 2**13  # one block of a file
    sizes = [len(part) for part in decompressed("shard", iter([compressed]), ".zst")]
    assert sum(sizes) == 2**27
    assert max(sizes) <= 2**26


def test_inputs_are_sorted_by_relative_path_and_found_once(tmp_path, documents):
    for name in ("b/2.txt", "b/10.jsonl.zst", "a.parquet", ".hidden/c.txt"):
        write_raw_shard(tmp_path / name, documents)
    found = find_raw_shards([tmp_path / "b" / "2.txt", tmp_path])
    assert [shard.path.relative_to(tmp_path).as_posix() for shard in found] == [
        "b/2.txt",
        "a.parquet",
        "b/10.jsonl.zst",
    ]


def test_a_missing_input_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.txt does not exist"):
        find_raw_shards([tmp_path / "nowhere.txt"])


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no files"):
        find_raw_shards([tmp_path])


def test_an_unknown_suffix_is_named_with_the_supported_ones(tmp_path):
    (tmp_path / "notes.docx").write_text("text")
    with pytest.raises(
        ValueError, match=r"notes.docx has no supported suffix \(.txt, .jsonl, .parquet, .tar, alone or with"
    ):
        find_raw_shards([tmp_path])


def test_a_glob_names_files_in_order_and_one_that_matches_none_is_refused(tmp_path):
    for name in ("b/2.txt", "b/1.txt", "a/3.txt", "a/4.jsonl"):
        write_raw_shard(tmp_path / name, ["one"])
    found = find_raw_shards([f"{tmp_path}/**/*.txt"])
    assert [shard.source for shard in found] == ["a/3.txt", "b/1.txt", "b/2.txt"]
    with pytest.raises(ValueError, match=r"\*.xz matches no file"):
        find_raw_shards([f"{tmp_path}/*.xz"])


def test_a_glob_may_name_folders(tmp_path):
    for name in ("b/2.txt", "b/c/1.txt", "b/.d/5.txt", "3.txt"):
        write_raw_shard(tmp_path / name, ["one"])
    assert [shard.path.name for shard in find_raw_shards([f"{tmp_path}/*"])] == ["3.txt", "2.txt", "1.txt"]


def test_links_are_followed_once_and_one_that_leads_nowhere_is_named(tmp_path):
    write_raw_shard(tmp_path / "b" / "1.txt", ["one"])
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "circle").symlink_to(folder)
    assert [shard.path.relative_to(folder).as_posix() for shard in find_raw_shards([folder])] == ["linked/1.txt"]
    (folder / "2.txt").symlink_to("gone.txt")
    for given in (folder, f"{folder}/*.txt"):
        with pytest.raises(FileNotFoundError, match="2.txt is a link to gone.txt, which does not exist"):
            find_raw_shards([given])


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_archive_holds_the_documents_of_its_members(tmp_path, suffix, documents):
    member = write_raw_shard(tmp_path / f"in{suffix}", documents)
    path = write_tar(
        tmp_path / "shards.tar.gz", {"b/1" + suffix: member.read_bytes(), "a/2" + suffix: member.read_bytes()}
    )
    assert documents_of(path) == documents + documents


def test_an_archive_may_hold_archives_and_hidden_files(tmp_path):
    inner = write_tar(tmp_path / "inner.tar", {"one.txt": b"one\n\ntwo", "two.txt": b"three"})
    path = write_tar(tmp_path / "outer.tar.xz", {"inner.tar.zst": COMPRESSORS[".zst"](inner.read_bytes()), "._x": b"-"})
    assert documents_of(path) == ["one", "two", "three"]


@pytest.mark.parametrize("suffix", ["", *COMPRESSED])
@pytest.mark.parametrize("num_kept", [512, 600, 1024, 2048])
def test_an_archive_that_was_cut_short_is_refused(tmp_path, suffix, num_kept):
    whole = write_tar(tmp_path / "whole.tar", {"1.txt": b"one", "2.txt": b"two"}).read_bytes()
    path = tmp_path / f"cut.tar{suffix}"
    path.write_bytes(COMPRESSORS[suffix](whole[:num_kept]))  # 1024: behind the first member
    with pytest.raises(DamagedShard, match=f"cut.tar{suffix}.* is damaged near byte {num_kept} of its archive"):
        documents_of(path)


def test_an_archive_behind_an_archive_is_refused(tmp_path):
    path = write_tar(tmp_path / "one.tar", {"1.txt": b"one"})
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(DamagedShard, match="something follows its end mark at byte 1024"):
        documents_of(path)


def test_an_unknown_member_of_an_archive_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one.tar, notes.docx has no supported suffix"):
        documents_of(write_tar(tmp_path / "one.tar", {"notes.docx": b"one"}))


def test_an_archive_may_name_files_above_it(tmp_path):
    assert documents_of(write_tar(tmp_path / "one.tar", {"../a.txt": b"one", "./b.txt": b"two"})) == ["one", "two"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_an_archive_is_refused(tmp_path, kind):
    link = tarfile.TarInfo("b.txt")
    link.type, link.linkname = kind, ".a.txt"
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(".a.txt"))
        archive.addfile(link)
    with pytest.raises(ValueError, match="one.tar, b.txt is a link to .a.txt, not a file; make the archive with `tar"):
        documents_of(tmp_path / "one.tar")


def test_memory_does_not_grow_with_the_number_of_members(tmp_path):
    path = write_tar(tmp_path / "one.tar", {f"{number}.txt": b"one" for number in range(2000)})
    tracemalloc.start()
    assert sum(1 for _ in read_documents(RawFile(path))) == 2000
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 300_000


LINES = ["one", "", "two", "three", "four", "five"]


@pytest.mark.parametrize("name", ["shard.txt", "shard.jsonl", "shard.parquet"])
def test_so_many_lines_or_rows_are_a_document(tmp_path, name):
    path = tmp_path / name
    path.write_text("\n".join(LINES)) if name == "shard.txt" else write_raw_shard(path, LINES)
    assert documents_of(path, document_rule="line", lines_per_document=2) == ["one\ntwo", "three\nfour", "five"]


@pytest.mark.parametrize("name", ["shard.jsonl", "shard.parquet"])
def test_rows_can_be_lines_with_blank_ones_between_documents(tmp_path, name):
    path = write_raw_shard(tmp_path / name, ["one\n", "two\n", "\n", "three\n", " ", "", "four"])
    assert documents_of(path, document_rule="blank_line") == ["one\ntwo", "three", "four"]


@pytest.mark.parametrize("rule", ["blank_line", "line"])
@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 5, 8, 1000])
def test_the_length_of_chunks_is_of_no_account(tmp_path, monkeypatch, rule, chunk_bytes):
    monkeypatch.setattr("data_prep.documents.text_chunks.CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr("data_prep.documents.decompress.BLOCK_BYTES", 3)
    path = tmp_path / "shard.txt"
    path.write_bytes("\ufeff\n é one\r\n\n\ntwo 🙂\n thr\ree\r\n\t\r\nfour\n\n".encode())
    expected = {
        "blank_line": [" é one", "two 🙂\n thr\ree", "four"],
        "line": [" é one", "two 🙂", " thr\ree", "\t", "four"],
    }
    assert documents_of(path, document_rule=rule) == expected[rule]


def test_records_that_cannot_be_read_are_dropped_and_itemised_up_to_a_number(tmp_path):
    path = write_tar(
        tmp_path / "shards.tar",
        {
            "a.txt": b"one\nb\xffd\ntwo",
            "b.jsonl": b'{"text": "three"}\n{"text": 4}\nfive',
            "c.parquet": parquet([None, "six"]),
        },
    )
    skipped = SkippedRecords("shards.tar", max_bad_records=4)
    parts = [text for text, _ in read_parts(path, DocumentRules(), skipped, lambda num_bytes: None)]
    assert parts == ["one\ntwo", "", "three", "six"]
    assert [record[:50] for record in skipped.records] == [
        "a.txt, byte 5 of its text is not UTF-8 (invalid st",
        "b.jsonl, line 2 (byte 18 of its text) has no text ",
        "b.jsonl, line 3 (byte 30 of its text) is not JSON:",
        "c.parquet, row 0 has no text in column 'text'",
    ]
    with pytest.raises(
        ValueError, match="line 3 .* is not JSON.* after 2 that were skipped; repair or remove it, or let"
    ):
        list(read_documents(RawFile(path), max_bad_records=2))


def test_a_line_too_long_to_drop_is_refused_when_it_is_not_utf8(tmp_path):
    path = tmp_path / "shard.txt"
    path.write_bytes(b"a" * 100_000 + b"\xff\nnext\n")
    with pytest.raises(DamagedShard, match="near byte 100000 of its text: invalid start byte"):
        list(read_documents(RawFile(path), max_bad_records=9))
