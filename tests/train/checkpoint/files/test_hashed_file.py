"""A file is described by what was written, wherever in the file, and is on disk when it closes."""

import os

import pytest
import xxhash

from train.checkpoint.files import hashed_file
from train.checkpoint.files.hashed_file import HashedFile, Run, write_hashed


def run(begin: int, content: bytes) -> Run:
    return Run(begin, len(content), xxhash.xxh3_128_hexdigest(content))


def test_bytes_in_a_row_are_one_run(tmp_path):
    with HashedFile(tmp_path / "file") as file:
        file.write(b"abc")
        file.write(memoryview(b"de"))
        file.write(b"f", begin=5)
    assert file.runs == [run(0, b"abcdef")] and (tmp_path / "file").read_bytes() == b"abcdef"


def test_a_long_run_ends_at_its_maximum_wherever_the_writes_end(tmp_path, monkeypatch):
    monkeypatch.setattr(hashed_file, "MAX_RUN", 4)
    with HashedFile(tmp_path / "file") as file:
        file.write(b"abc")
        file.write(b"defghijk")
        file.write(b"l")
        file.write(b"mn", begin=14)
    assert file.runs == [run(0, b"abcd"), run(4, b"efgh"), run(8, b"ijkl"), run(14, b"mn")]
    assert (tmp_path / "file").read_bytes() == b"abcdefghijkl\0\0mn"


def test_two_writers_share_a_file_and_each_describes_its_own_bytes(tmp_path):
    (tmp_path / "file").write_bytes(bytes(8))
    with (
        HashedFile(tmp_path / "file", may_exist=True) as first,
        HashedFile(tmp_path / "file", may_exist=True) as second,
    ):
        first.write(b"ab")
        second.write(b"cde", begin=2)
        first.write(b"fg", begin=5)
        first.write(b"h")
    assert first.runs == [run(0, b"ab"), run(5, b"fgh")] and second.runs == [run(2, b"cde")]
    assert (tmp_path / "file").read_bytes() == b"abcdefgh"


def test_no_bytes_are_no_run(tmp_path):
    assert write_hashed(tmp_path / "empty", b"") == [] and (tmp_path / "empty").read_bytes() == b""


def test_a_new_file_replaces_none(tmp_path):
    write_hashed(tmp_path / "file", b"a")
    with pytest.raises(FileExistsError):
        write_hashed(tmp_path / "file", b"b")


def test_the_bytes_are_on_disk_when_the_file_closes(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    write_hashed(tmp_path / "file", b"abc")
    assert sizes == [3]
