"""Raw files from strangers: each ends in bounded time and memory, with the status and the line that it deserves."""

import gzip
import json
import os
import tarfile
from collections.abc import Callable
from typing import NamedTuple

import pytest

from data_prep.train_tokenizer import main
from tests.data_prep.documents.raw_shards import parquet
from tests.data_prep.hostile import archive_bytes as of
from tests.data_prep.hostile.command_runs import check_ending, run_command

READ = "257 tokens"  # what the command prints when it has read everything
GIB = 2**30


class Case(NamedTuple):
    """One file: its name, its content, and the line with which reading it ends."""

    name: str
    content: Callable[[], bytes]
    message: str
    status: int = 2


def refused(name: str, content: Callable[[], bytes], message: str) -> Case:
    return Case(name, content, message)


def read(name: str, content: Callable[[], bytes]) -> Case:
    return Case(name, content, READ, 0)


def flipped(kind: str) -> Callable[[], bytes]:
    return lambda: of.flipped(of.COMPRESS[kind](of.varied()))


def cut(kind: str) -> Callable[[], bytes]:
    return lambda: of.COMPRESS[kind](of.varied())[:-9]


ARCHIVES = [
    refused("pax_1_gib.tar", lambda: of.extended(tarfile.XHDTYPE, size=GIB), "1073741824 bytes of extended headers"),
    refused("global_1_gib.tar", lambda: of.extended(tarfile.XGLTYPE, size=GIB), "1073741824 bytes of extended headers"),
    refused("name_1_gib.tar", lambda: of.extended(tarfile.GNUTYPE_LONGNAME, size=GIB), "bytes of extended headers"),
    refused("headers.tar", lambda: of.pax(b"9 a=bcd\n\n" + bytes(503)) * 3000, "bytes of extended headers, above"),
    refused("pax_digits.tar", lambda: of.pax(b"1" * 900_000) + of.member("a.txt"), "record of another length"),
    refused("pax_size.tar", lambda: of.pax(b"11 size=1e9\n"[:12]) + of.member("a.txt"), "is damaged near byte"),
    refused("size_8_eib.tar", lambda: of.member("a.txt", size=2**63), "size_8_eib.tar is damaged .*unexpected end"),
    refused("size_negative.tar", lambda: of.member("a.txt", size=-512), "a.txt has -512 bytes"),
    refused("checksum.tar", of.broken_checksum, "bad checksum"),
    refused("sparse.tar", lambda: of.member("a.txt", b"", type=tarfile.GNUTYPE_SPARSE), "a.txt is sparse"),
    refused("sparse_pax.tar", lambda: of.pax(b"22 GNU.sparse.major=1\n") + of.member("a.txt"), "is sparse"),
    refused("link.tar", lambda: of.member("a.txt", b"", type=b"2", linkname="/etc/passwd"), "is a link to /etc/passwd"),
    refused("hard_link.tar", lambda: of.member("a.txt", b"", type=b"1", linkname="b"), "is a link to b, not a file"),
    refused("device.tar", lambda: of.member("a.txt", b"", type=b"3"), "of tar's type b'3', not a file"),
    refused("pipe.tar", lambda: of.member("a.txt", b"", type=b"6"), "of tar's type b'6', not a file"),
    refused("levels.tar", lambda: of.nested(40), "lies within 8 archives and compressions; extract"),
    refused("path.tar", lambda: of.extended(b"L", b"a" * 90_000) + of.member("a"), "path of 90000 characters, above"),
    refused("cut.tar", lambda: of.member("a.txt"), "it ends before its end mark"),
    refused("goes_on.tar", lambda: of.member("a.txt") + of.END_MARK + b"x", "something follows its end mark"),
    refused(
        "other.tar", lambda: of.member("notes.docx") + of.END_MARK, "other.tar, notes.docx has no supported suffix"
    ),
    refused("text.tar", lambda: b"text, not an archive" * 99, "text.tar is damaged near byte"),
    read("members.tar.gz", lambda: of.many_members(5000)),
    read("paths.tar", lambda: of.member("../../a.txt") + of.member("/etc/a.txt") + of.END_MARK),
    read("zeros.tar", lambda: of.member("a.txt") + bytes(10**7)),
]
COMPRESSED = [
    *(refused(f"cut.txt.{kind}", cut(kind), "the file ends before its content does") for kind in of.COMPRESS),
    *(refused(f"flipped.txt.{kind}", flipped(kind), "is damaged near byte") for kind in of.COMPRESS),
    *(refused(f"empty.txt.{kind}", bytes, "is damaged near byte 0") for kind in of.COMPRESS),
    *(refused(f"text.txt.{kind}", lambda: of.TEXT, "is damaged near byte 0") for kind in of.COMPRESS),
    refused("goes_on.txt.gz", lambda: gzip.compress(of.TEXT) + b"more", "goes_on.txt.gz is damaged"),
    refused("levels.txt" + ".gz" * 9, bytes, "no supported suffix"),
    refused("window.txt.zst", lambda: of.zst_with_window(41), "needs more than 2048 MiB of memory to be decompressed"),
    refused("window.txt.xz", of.xz_with_dictionary_of_4_gib, "needs more than 2048 MiB of memory to be decompressed"),
    refused("dictionary.txt.zst", of.zst_with_dictionary, "needs the dictionary that it was compressed with"),
    read("blank.txt.zst", lambda: of.repeated_zst(b"\n" * 2**20, 32)),
    refused("spaces.txt.zst", lambda: of.repeated_zst(b" " * 2**20, 16), "a line that begins with .* whitespace"),
    refused("row.jsonl.zst", lambda: of.repeated_zst(b"[" * 2**20, 32), "a line of more than 16777216 bytes"),
]
ROWS = [
    refused("deep.jsonl", lambda: b"[" * 100_000, "line 1 .* is not JSON"),
    refused("indented.json", lambda: b'[\n  {"text": "a"}\n]', "one value over several lines"),
    refused("array.json", lambda: b'[{"text": "a"}]', "is a list, not an object; write one object per line"),
    refused("null.jsonl", lambda: b'{"text": null}', "holds null in field 'text', not text"),
    refused("utf16.jsonl", lambda: '{"text": "a"}'.encode("utf-16"), "is not JSON"),
    refused("fields.jsonl", lambda: json.dumps({"x" * i: 0 for i in range(3000)}).encode(), "and 2990 more; choose"),
    refused("binary.jsonl", lambda: bytes(range(256)), "is not JSON"),
    read("digits.jsonl", lambda: b'{"text": "a", "id": ' + b"9" * 5000 + b"}"),
    read("surrogate.jsonl", lambda: rb'{"text": "\ud800"}'),
    read("twice.jsonl", lambda: b'{"text": "a", "text": "b"}'),
    refused("null.parquet", lambda: parquet(["one", None]), "row 1 holds null in column 'text'"),
    refused("cut.parquet", lambda: parquet(["one"])[:-20], "is damaged near row 0"),
    refused("hollow.parquet", lambda: b"PAR1PAR1", "is damaged near row 0"),
    refused("footer.parquet", lambda: parquet(["one"])[:-8] + b"\xff\xff\xff\x7fPAR1", "is damaged near row 0"),
    refused("flipped.parquet", lambda: of.flipped(parquet(["one" * 999])), "flipped.parquet"),
    refused("rows.parquet", lambda: of.parquet_of("a" * 2**26, 16), "row 0 has a text of 67108864 bytes, above"),
    refused("text.parquet.zst", lambda: of.repeated_zst(b"a" * 2**20, 2**7), "text.parquet.zst is damaged near byte 0"),
    refused("text.parquet", lambda: of.TEXT, "is damaged near row 0"),
]
TEXTS = [
    refused("utf16.txt", lambda: "one\n".encode("utf-16"), "byte 0 of its text is not UTF-8"),
    refused("long_line.txt", lambda: b"a" * 100_000 + b"\xff", "is damaged near byte 100000 of its text"),
    read("nul.txt", lambda: bytes(1000)),
    read("separators.txt", lambda: "\u2028\x0b\x0c\x85\r".encode() * 99),
    refused("notes.docx", lambda: of.TEXT, "notes.docx has no supported suffix"),
    refused("no_suffix", lambda: of.TEXT, "no_suffix has no supported suffix"),
]
CASES = [*ARCHIVES, *COMPRESSED, *ROWS, *TEXTS]


@pytest.fixture(autouse=True)
def short_rows(monkeypatch):
    monkeypatch.setattr("data_prep.documents.rows.LONGEST_ROW", 2**24)
    monkeypatch.setattr("data_prep.documents.parquet_rows.LONGEST_TEXT", 2**24)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_file_from_a_stranger_ends_as_it_should(tmp_path, case):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / case.name).write_bytes(case.content())
    check_ending(_read_folder(tmp_path), case.status, case.message)


def pipe(folder):
    os.mkfifo(folder / "a.txt")


def device(folder):
    (folder / "a.txt").symlink_to("/dev/zero")


def broken_link(folder):
    (folder / "a.txt").symlink_to("gone")


def circle(folder):
    (folder / "a.txt").symlink_to("a.txt")


def doubling_links(folder):
    for level in range(40):
        (folder / str(level)).mkdir()
        for name in "ab":
            (folder / str(level) / name).symlink_to(folder / str(level + 1))
    (folder / "40").mkdir()


FOLDERS = [
    (pipe, "a.txt is a pipe, a socket or a device"),
    (device, "a.txt is a pipe, a socket or a device"),
    (broken_link, "a.txt is a link to gone, which does not exist"),
    (circle, "Too many levels of symbolic links: .*a.txt"),
    (doubling_links, "has no files; give a folder with raw shards"),
]


@pytest.mark.parametrize(("fill", "message"), FOLDERS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_folder_from_a_stranger_ends_as_it_should(tmp_path, fill, message):
    (tmp_path / "raw").mkdir()
    fill(tmp_path / "raw")
    check_ending(_read_folder(tmp_path), 2, message)


def _read_folder(folder):
    arguments = ["--input", folder / "raw", "--vocab_size", 257, "--output", folder / "tokenizer"]
    return run_command(main, arguments, folder / "log")
