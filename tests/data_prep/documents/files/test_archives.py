"""An archive yields the documents of its members, and one that is cut short or ambiguous is refused."""

import io
import tarfile
import tracemalloc

import pytest

from data_prep.documents.files.decompress import DamagedShard
from data_prep.documents.raw_shards import RawFile, read_documents
from tests.data_prep.documents.raw_shards import (
    COMPRESSED,
    COMPRESSORS,
    FORMATS,
    documents_of,
    write_raw_shard,
    write_tar,
)


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
    path.write_bytes(COMPRESSORS[suffix](whole[:num_kept]))  # 1024: after the first member
    with pytest.raises(DamagedShard, match=f"cut.tar{suffix}.* is damaged near byte {num_kept} of its archive"):
        documents_of(path)


def test_an_archive_after_an_archive_is_refused(tmp_path):
    path = write_tar(tmp_path / "one.tar", {"1.txt": b"one"})
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(DamagedShard, match="something follows its end mark at byte 1024"):
        documents_of(path)


def test_an_unknown_member_of_an_archive_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one.tar, notes.docx has no supported suffix"):
        documents_of(write_tar(tmp_path / "one.tar", {"notes.docx": b"one"}))


def test_a_member_may_have_a_path_outside_the_archive(tmp_path):
    assert documents_of(write_tar(tmp_path / "one.tar", {"../a.txt": b"one", "./b.txt": b"two"})) == ["one", "two"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_an_archive_is_refused(tmp_path, kind):
    link = tarfile.TarInfo("b.txt")
    link.type, link.linkname = kind, ".a.txt"
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(".a.txt"))
        archive.addfile(link)
    with pytest.raises(ValueError, match="one.tar, b.txt is a link to .a.txt, not a file; create the archive with"):
        documents_of(tmp_path / "one.tar")


def test_memory_does_not_grow_with_the_number_of_members(tmp_path):
    path = write_tar(tmp_path / "one.tar", {f"{number}.txt": b"one" for number in range(2000)})
    tracemalloc.start()
    assert sum(1 for _ in read_documents(RawFile(path))) == 2000
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 300_000


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_archive_is_read_as_tarfile_writes_it(tmp_path, format):
    names = ["a.txt", "b/c.txt", "é" * 20 + ".txt", "folder/" * 12 + "d.txt"]
    names += [] if format == tarfile.USTAR_FORMAT else ["long" * 100 + ".txt"]
    with tarfile.open(tmp_path / "one.tar", "w", format=format, encoding="utf-8") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(name.encode())
            archive.addfile(entry, io.BytesIO(name.encode()))
    assert documents_of(tmp_path / "one.tar") == names


def header(name, kind, size):
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, size
    return entry.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_headers_above_a_mebibyte_are_refused_before_they_are_read(tmp_path, kind):
    (tmp_path / "one.tar").write_bytes(header("pax", kind, 2**30))
    with pytest.raises(
        ValueError, match="one.tar has a member with 1073741824 bytes of extended headers, above 1048576"
    ):
        documents_of(tmp_path / "one.tar")


def test_many_headers_of_one_member_are_refused(tmp_path):
    (tmp_path / "one.tar").write_bytes((header("pax", tarfile.XHDTYPE, 512) + bytes(512)) * 3000)
    with pytest.raises(ValueError, match="has a member with 1049088 bytes of extended headers"):
        documents_of(tmp_path / "one.tar")


def test_a_sparse_member_is_refused(tmp_path):
    (tmp_path / "old.tar").write_bytes(header("a.txt", tarfile.GNUTYPE_SPARSE, 0))
    fields = {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(2**33)}
    with tarfile.open(tmp_path / "new.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("a.txt")
        entry.pax_headers = fields
        archive.addfile(entry)
    for name in ("old.tar", "new.tar"):
        with pytest.raises(ValueError, match=f"{name}, a.txt is sparse: .* create the archive without --sparse"):
            documents_of(tmp_path / name)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"99 path=a.txt\n", "a pax header has a record of another length"),
        (b"0 path=a.txt\n", "a pax header has a record of another length"),
        (b"1" * 600, "a pax header has a record of another length"),
        (b"11 size=-1\n", "a.txt has the size -1"),
        (b"30 size=99999999999999999999\n\n", "a.txt has the size 99999999999999999999"),
    ],
)
def test_a_damaged_pax_header_is_refused(tmp_path, record, reason):
    content = header("pax", tarfile.XHDTYPE, len(record)) + record + bytes(-len(record) % 512)
    (tmp_path / "one.tar").write_bytes(content + header("a.txt", tarfile.REGTYPE, 0) + bytes(1024))
    with pytest.raises(DamagedShard, match=f"one.tar is damaged near byte .* of its archive: {reason}"):
        documents_of(tmp_path / "one.tar")


def test_archives_within_archives_are_read_to_a_depth_of_eight(tmp_path):
    content = b"one"
    path = write_tar(tmp_path / "0.tar", {"a.txt": content})
    for level in range(1, 7):
        path = write_tar(tmp_path / f"{level}.tar", {path.name: path.read_bytes()})
    assert documents_of(path) == ["one"]
    path = write_tar(tmp_path / "7.tar", {path.name: path.read_bytes()})
    with pytest.raises(ValueError, match="a.txt lies within 8 archives and compressions; extract some of them"):
        documents_of(path)
    many = write_tar(tmp_path / "many.tar", {"a.txt" + ".gz" * 1000: content})
    with pytest.raises(ValueError, match="has no supported suffix"):
        documents_of(many)


def test_a_path_that_no_file_system_has_is_refused_without_being_printed(tmp_path):
    path = write_tar(tmp_path / "one.tar", {"a" * 50_000 + ".txt": b"one"})
    with pytest.raises(ValueError, match="one.tar has a path of 50004 characters, above 4096; shorten it"):
        documents_of(path)
