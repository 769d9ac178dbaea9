"""Byte ranges read every document once and in order, wherever a file is cut."""

import random
from itertools import pairwise

import pytest
import xxhash

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.files.byte_ranges import divide_bytes, owned_span
from data_prep.documents.raw_shards import RawFile, read_documents
from data_prep.documents.skipped import SkippedRecords
from tests.data_prep.documents.raw_shards import documents_of, jsonl, write_raw_shard

SIGNS = ["a", "b c", "\n", "\n\n", "\n \n", "\r\n", "\r", "\t", "\xa0", "\u2028", "é", "\U0001f600", "\ufeff"]
BLANK_LINE, LINE = DocumentRules(), DocumentRules(document_rule="line")


def ranges(path, cuts):
    borders = [0, *sorted(cuts), path.stat().st_size]
    return [RawFile(path, start, end) for start, end in pairwise(borders)]


def read(raw_file, rules, *, digest=None):
    """Return the documents, the number of skipped lines and the number of bytes read."""
    skipped, num_bytes = SkippedRecords("shard", max_bad_records=100), []
    documents, parts = [], []
    for text, ends_document in raw_file.read_parts(rules, skipped, num_bytes.append, digest=digest):
        parts.append(text)
        if ends_document:
            documents, parts = [*documents, "".join(parts)], []
    return [text for text in [*documents, "".join(parts)] if text], len(skipped.records), sum(num_bytes)


def random_text(generator):
    signs = [sign.encode() for sign in SIGNS] + [b"\xff", b"\xe2\x82"] * generator.randrange(2)
    return b"".join(generator.choices(signs, k=generator.randrange(60)))


def random_rows(generator):
    rows = generator.choices([b'{"text": "a"}', '{"text": "é b"}'.encode(), b"", b"{", b" \r"], k=8)
    return b"\n".join(rows) + generator.choice([b"", b"\n"])


@pytest.mark.parametrize(
    ("name", "rules", "content"),
    [("a.txt", BLANK_LINE, random_text), ("a.txt", LINE, random_text), ("a.jsonl", DocumentRules(), random_rows)],
)
def test_ranges_hold_the_documents_of_the_whole_file(tmp_path, name, rules, content):
    path, generator = tmp_path / name, random.Random(0)
    for _ in range(400):
        path.write_bytes(content(generator))
        cuts = generator.choices(range(path.stat().st_size + 1), k=generator.randrange(5))
        whole, whole_digest, digest = read(RawFile(path), rules), xxhash.xxh3_128(), xxhash.xxh3_128()
        parts = [read(each, rules, digest=digest) for each in ranges(path, cuts)]
        documents = [document for part in parts for document in part[0]]
        assert (documents, *(sum(part[i] for part in parts) for i in (1, 2))) == whole, (path.read_bytes(), cuts)
        read(RawFile(path), rules, digest=whole_digest)
        assert digest.digest() == whole_digest.digest() == xxhash.xxh3_128(path.read_bytes()).digest()


def test_a_range_owns_the_lines_that_begin_in_it(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(jsonl(["0", "1", "2"]))  # 14 bytes per line
    lines = [[list(read_documents(each)) for each in ranges(path, [cut])] for cut in (13, 14, 15)]
    assert lines == [[["0"], ["1", "2"]], [["0"], ["1", "2"]], [["0", "1"], ["2"]]]


def test_a_border_within_a_document_moves_behind_its_blank_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\nthree\n")
    assert owned_span(path, 5, 15, after_blank_line=True) == (9, 15)
    assert owned_span(path, 0, 5, after_blank_line=True) == (0, 9)
    assert owned_span(path, 5, 7, after_blank_line=True) == (0, 0)  # no blank line begins in it


def test_a_range_without_a_border_reads_nothing_and_the_one_before_reads_on(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("word " * 5000)
    assert [read(each, BLANK_LINE)[2] for each in ranges(path, [1000, 2000])] == [25000, 0, 0]


def test_only_the_start_of_the_file_has_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\ufeffone\n\n\ufefftwo\n")
    assert [list(read_documents(each)) for each in ranges(path, [5])] == [["one"], ["\ufefftwo"]]


def test_a_bad_line_of_a_range_has_its_place_in_the_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n\ntwo\n\xff\n")
    with pytest.raises(ValueError, match="byte 9 of its text is not UTF-8"):
        list(read_documents(RawFile(path, 3, 11)))
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": 1}\n')
    with pytest.raises(ValueError, match="a.jsonl, byte 14 of its text holds a number"):
        list(read_documents(RawFile(path, 14, 26)))


def test_a_plain_file_is_cut_into_equal_ranges_and_others_stay_whole(tmp_path):
    for name in ("a.txt", "a.jsonl", "a.txt.gz", "a.parquet"):
        (tmp_path / name).write_bytes(bytes(100))
    cut = RawFile(tmp_path / "a.txt").cut(30, BLANK_LINE)
    assert [(each.start, each.end, each.num_bytes) for each in cut] == [
        (0, 25, 25), (25, 50, 25), (50, 75, 25), (75, 100, 25),
    ]  # fmt: skip
    assert cut[1].identity() == cut[0].identity() | {"start": 25, "end": 50}
    assert len(RawFile(tmp_path / "a.jsonl").cut(50, LINE)) == 2
    rows_that_end_documents = DocumentRules(document_rule="blank_line")
    several_lines = DocumentRules(document_rule="line", lines_per_document=2)
    for name, rules in (
        ("a.txt", several_lines), ("a.jsonl", rows_that_end_documents), ("a.txt.gz", LINE), ("a.parquet", LINE),
    ):  # fmt: skip
        assert RawFile(tmp_path / name).cut(50, rules) == [RawFile(tmp_path / name)]
    assert RawFile(tmp_path / "a.txt").cut(100, LINE) == [RawFile(tmp_path / "a.txt")]


def test_a_digest_of_parquet_is_that_of_its_file(tmp_path, documents):
    path, digest = write_raw_shard(tmp_path / "a.parquet", documents), xxhash.xxh3_128()
    assert read(RawFile(path), LINE, digest=digest)[0] == documents == documents_of(path)
    assert digest.digest() == xxhash.xxh3_128(path.read_bytes()).digest()


def test_ranges_are_equal_and_at_least_one():
    assert divide_bytes(10, 4) == [(0, 3), (3, 6), (6, 10)]
    assert divide_bytes(0, 4) == [(0, 0)] and divide_bytes(4, 4) == [(0, 4)]
