"""Remote files are found, identified and read like local ones, and a broken connection never shortens a document."""

import os
import random
import sys

import fsspec
import pytest

from data_prep.documents.files import http_files, remote_files, retries
from data_prep.documents.raw_shards import RawFile, find_raw_shards, read_documents
from tests.data_prep.documents.files.web_server import web_server
from tests.data_prep.documents.raw_shards import FORMATS, count_characters, documents_of, write_raw_shard, write_tar


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The URL of tmp_path/raw, and the server's faults; requests for 64 bytes that are repeated at once."""
    monkeypatch.setattr(remote_files, "PART_BYTES", 64)
    monkeypatch.setattr(retries, "WAITS_SECONDS", (0, 0, 0))
    (tmp_path / "raw").mkdir()
    with web_server(tmp_path / "raw") as (url, faults):
        yield url, faults


@pytest.fixture
def memory(tmp_path):
    store = fsspec.filesystem("memory")
    yield store
    store.store.clear()


def documents_at(*inputs, **options):
    return [list(read_documents(shard)) for shard in find_raw_shards(list(inputs), **options)]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_read_from_a_web_server(server, tmp_path, suffix, documents):
    path = write_raw_shard(tmp_path / "raw" / f"a{suffix}", documents * 9)
    assert documents_at(f"{server[0]}/a{suffix}") == [documents * 9] == [documents_of(path)]


def test_folders_and_globs_of_a_web_server_are_sorted_and_filtered(server, tmp_path):
    url, _ = server
    for name in ("b/2.txt", "b/10.txt", "b/.hidden.txt", "b/c/3.jsonl", "README.md", "a b.txt"):
        write_raw_shard(tmp_path / "raw" / name, [name])
    assert documents_at(f"{url}/b/") == [["b/10.txt"], ["b/2.txt"], ["b/c/3.jsonl"]]
    assert documents_at(f"{url}/*.txt") == [["a b.txt"]]
    assert documents_at(f"{url}/**", include=("*.jsonl",)) == [["b/c/3.jsonl"]]
    assert [shard.source for shard in find_raw_shards([f"{url}/b/c/*"])] == ["c/3.jsonl"]
    with pytest.raises(ValueError, match=r"/README.md has no supported suffix"):
        documents_at(f"{url}/")
    with pytest.raises(ValueError, match=r"\*.parquet has no files"):
        documents_at(f"{url}/*.parquet")


@pytest.mark.parametrize("path", ["", "**", "*/*.txt"])
def test_a_folder_whose_listing_fails_is_not_left_out(server, tmp_path, path):
    url, faults = server
    write_raw_shard(tmp_path / "raw" / "b" / "a.txt", ["one"])
    faults.statuses = [503]
    assert documents_at(f"{url}/{path}") == [["one"]]
    faults.statuses = [403]
    with pytest.raises(PermissionError, match="/ cannot be read: HTTP status 403"):
        documents_at(f"{url}/{path}")


@pytest.mark.parametrize("path", ["", "**"])
def test_an_index_without_end_is_refused(server, monkeypatch, path):
    url, faults = server
    faults.has_endless_index = True
    with pytest.raises(ValueError, match=f"^{url}/ has more than 16 levels of folders; give its folders or files one"):
        documents_at(f"{url}/{path}")
    assert faults.num_requests == 17 + 1
    monkeypatch.setattr(http_files, "MOST_FOLDERS", 5)
    with pytest.raises(ValueError, match=f"^{url}/ has more than 5 folders"):
        documents_at(f"{url}/{path}")


def test_an_index_of_too_many_files_is_refused(server, monkeypatch, tmp_path):
    url, _ = server
    for name in ("1.txt", "b/2.txt", "b/3.txt"):
        write_raw_shard(tmp_path / "raw" / name, [name])
    monkeypatch.setattr(http_files, "MOST_FILES", 3)
    assert len(documents_at(f"{url}/")) == 3
    monkeypatch.setattr(http_files, "MOST_FILES", 2)
    with pytest.raises(ValueError, match=f"^{url}/ has more than 2 files"):
        documents_at(f"{url}/")


def test_a_query_belongs_to_a_url_and_not_to_its_name(server, tmp_path):
    write_raw_shard(tmp_path / "raw" / "a.txt", ["one"])
    (raw_file,) = find_raw_shards([f"{server[0]}/a.txt?signature=a.b"])
    assert (raw_file.name, raw_file.path.name, list(read_documents(raw_file))) == ("a", "a.txt", ["one"])


def test_the_identity_is_size_and_etag_and_notices_a_change(server, tmp_path):
    path = write_raw_shard(tmp_path / "raw" / "a.txt", ["one"])
    (raw_file,) = find_raw_shards([f"{server[0]}/a.txt"])
    before = raw_file.identity()
    assert before == {"path": f"{server[0]}/a.txt", "num_bytes": 5, "version": f'"{path.stat().st_mtime_ns}"'}
    os.utime(path, ns=(0, 0))
    assert raw_file.identity() == before | {"version": '"0"'}


def test_byte_ranges_of_a_remote_file_hold_its_documents(server, tmp_path):
    documents = [f"document {number}" for number in range(99)]
    write_raw_shard(tmp_path / "raw" / "a.txt", documents)
    (raw_file,) = find_raw_shards([f"{server[0]}/a.txt"])
    borders = [0, *sorted(random.Random(0).choices(range(raw_file.num_bytes), k=5)), raw_file.num_bytes]
    parts = [RawFile(raw_file.path, start, end) for start, end in zip(borders[:-1], borders[1:], strict=True)]
    assert [document for part in parts for document in read_documents(part)] == documents


@pytest.mark.parametrize("fault", [{"num_cut": 3}, {"statuses": [503, 429, 500]}])
def test_a_failure_that_passes_is_repeated(server, tmp_path, fault):
    url, faults = server
    write_raw_shard(tmp_path / "raw" / "a.txt", ["a long document " * 20])
    vars(faults).update(fault)
    assert documents_at(f"{url}/a.txt") == [["a long document " * 20]]
    assert faults.num_requests == 6 + 3  # 322 bytes in parts of 64


def test_a_connection_that_stays_broken_is_an_error_with_the_place(server, tmp_path):
    url, faults = server
    write_raw_shard(tmp_path / "raw" / "a.txt", ["a long document " * 20])
    (raw_file,) = find_raw_shards([f"{url}/a.txt"])
    parts = raw_file.path.open()
    assert parts.read(64) == b"a long document " * 4
    faults.num_cut = 99
    with pytest.raises(OSError, match=r"a.txt, from byte 64 to 128, cannot be read, after 4 attempts: .*start again"):
        parts.read(64)


@pytest.mark.parametrize(("status", "error"), [(404, FileNotFoundError), (403, PermissionError), (400, ValueError)])
def test_a_final_answer_is_not_repeated(server, tmp_path, status, error):
    url, faults = server
    write_raw_shard(tmp_path / "raw" / "a.txt", ["one"])
    faults.statuses = [503, status]
    with pytest.raises(error, match=f"a.txt cannot be read: HTTP status {status}"):
        documents_at(f"{url}/a.txt")
    assert faults.num_requests == 1


def test_a_file_that_is_not_there_is_named(server):
    with pytest.raises(FileNotFoundError, match="/gone.txt cannot be read: HTTP status 404"):
        documents_at(f"{server[0]}/gone.txt")


def test_a_server_that_ignores_ranges_is_refused_unless_one_part_is_all(server, tmp_path):
    url, faults = server
    faults.ignores_ranges = True
    write_raw_shard(tmp_path / "raw" / "short.txt", ["one"])
    write_raw_shard(tmp_path / "raw" / "long.txt", ["one" * 99])
    assert documents_at(f"{url}/short.txt") == [["one"]]
    with pytest.raises(ValueError, match="long.txt cannot be read in parts: its server ignores byte ranges"):
        documents_at(f"{url}/long.txt")


def test_a_server_that_gives_no_size_is_refused(server, tmp_path):
    url, faults = server
    faults.has_sizes = False
    write_raw_shard(tmp_path / "raw" / "a.txt", ["one"])
    with pytest.raises(ValueError, match="a.txt has no size, or neither a digest nor a time"):
        documents_at(f"{url}/a.txt")


def test_a_store_of_fsspec_is_read_by_folder_glob_and_name(memory, tmp_path):
    archive = write_tar(tmp_path / "in.tar", {"a.txt": b"three", "README.md": b"-"}).read_bytes()
    content = {"raw/b/2.txt": b"two", "raw/1.txt": b"one\n\nmore", "raw/c/3.tar": archive, "raw/c/.x": b"-"}
    for name, each in content.items():
        memory.pipe_file(f"/{name}", each)
    assert documents_at("memory://raw", include=("*.txt",)) == [["one", "more"], ["two"], ["three"]]
    assert documents_at("memory://raw/*.txt", "memory://raw/b/2.txt") == [["one", "more"], ["two"]]
    (raw_file,) = find_raw_shards(["memory://raw/1.txt"])
    assert (raw_file.source, raw_file.num_bytes) == ("raw/1.txt", 9)
    before = raw_file.identity()
    memory.pipe_file("/raw/1.txt", b"one\n\nmorf")
    assert raw_file.identity() != before


def test_memory_holds_parts_of_a_remote_file(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_files, "PART_BYTES", 2**16)
    memory.pipe_file("/a.txt", b"a line of text\n\n" * 80_000)
    num_characters, peak_bytes = count_characters(find_raw_shards(["memory://a.txt"])[0])
    assert num_characters == 14 * 80_000 and peak_bytes < 1_000_000


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://bucket/a.txt", "needs the package s3fs; run `pip install s3fs`, or copy the files to a disk"),
        ("gs://bucket/*.txt", "needs the package gcsfs; run `pip install gcsfs`"),
        ("sftp://host/a.txt", "needs another package: .*paramiko"),
        ("nothing://a.txt", "cannot be opened: .*nothing.*; use s3://, gs://, https://, hf:// or a path"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, url, message):
    for package in ("s3fs", "gcsfs", "paramiko"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ValueError, match=message):
        find_raw_shards([url])


def test_a_url_of_a_local_file_is_its_path(tmp_path):
    write_raw_shard(tmp_path / "a.txt", ["one"])
    assert find_raw_shards([f"file://{tmp_path}/a.txt"]) == [RawFile(tmp_path / "a.txt")]
