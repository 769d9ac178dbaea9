"""An archive yields the documents of its members, and one that is cut short or ambiguous is refused."""

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
