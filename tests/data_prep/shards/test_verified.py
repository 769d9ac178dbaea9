"""Verified shards are read without their digests until the file, one of its times, its place or corpus is another."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from data_prep.shards import verified
from data_prep.shards.block_sums import BlockSums
from data_prep.shards.manifest import read_manifest
from data_prep.shards.token_stream import TokenStream
from data_prep.shards.verified import STAMP_NAME, FileState, read_stamp, write_stamp
from data_prep.verifying.folder_check import verify
from tests.damage import damages, flip_bit
from tests.data_prep.shards.test_token_stream import STREAM, write_folder

LONG_AGO = 10**18  # nanoseconds after 1970


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def minute_later(monkeypatch):
    """The system sets ctime, so a test cannot wait for a file to become old, but can move the clock of `verified`."""
    monkeypatch.setattr(verified, "time_ns", lambda: time.time_ns() + 60 * 10**9)


@pytest.fixture
def folder(tmp_path, minute_later):
    """Token shards that were written long ago, and verified."""
    folder = write_folder(tmp_path / "tokens")
    for path in folder.glob("*.bin"):
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    assert verify(folder) == []
    return folder


def stamp(folder) -> dict[str, FileState]:
    return read_stamp(folder, read_manifest(folder))


def set_back(path: Path, before: os.stat_result) -> None:
    """Give a file the mtime of another, as a copy has it, at a later tick of the file system's clock."""
    os.utime(path, ns=(LONG_AGO, before.st_mtime_ns))
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        os.utime(path, ns=(LONG_AGO, before.st_mtime_ns))


def test_verified_shards_are_read_without_their_digests(folder, monkeypatch):
    def refuse(*_):
        raise AssertionError("digests are read")

    monkeypatch.setattr(BlockSums, "_read", refuse)
    assert TokenStream(folder).read(0, 12).tolist() == STREAM
    (folder / STAMP_NAME).unlink()
    with pytest.raises(AssertionError, match="digests are read"):
        TokenStream(folder).read(0, 12)


def test_no_damage_that_changes_size_or_time_passes_a_stamp(folder):
    content = (folder / STAMP_NAME).read_bytes()
    for path in damages(sorted(folder.glob("*.bin")), number=60):
        (folder / STAMP_NAME).write_bytes(content)  # not that of what was restored just now
        with pytest.raises(ValueError, match=path.name):
            TokenStream(folder).read(0, 12)
        assert len(verify(folder)) == 1
    assert verify(folder) == [] and TokenStream(folder).read(0, 12).tolist() == STREAM


def test_only_intact_shards_are_stamped(folder):
    flip_bit(folder / "shard2.bin", 5)
    os.utime(folder / "shard2.bin", ns=(LONG_AGO, LONG_AGO))
    assert len(verify(folder)) == 1
    assert set(stamp(folder)) == {"shard0", "shard1"}
    with pytest.raises(ValueError, match="shard2.bin is damaged"):
        TokenStream(folder).read(7, 1)


def test_a_change_is_noticed_though_the_time_is_set_back(folder):
    path = folder / "shard2.bin"
    before = path.stat()
    flip_bit(path, 4)
    set_back(path, before)
    with pytest.raises(ValueError, match="shard2.bin is damaged"):
        TokenStream(folder).read(7, 1)


def test_a_copy_that_was_put_in_the_place_of_the_folder_is_compared(folder, tmp_path):
    before, backup = (folder / "shard2.bin").stat(), tmp_path / "backup"
    subprocess.run(["cp", "-a", folder, backup], check=True)
    flip_bit(backup / "shard2.bin", 4)  # on the way
    set_back(backup / "shard2.bin", before)
    shutil.rmtree(folder)
    subprocess.run(["cp", "-a", backup, folder], check=True)
    assert (folder / "shard2.bin").stat().st_mtime_ns == before.st_mtime_ns and len(stamp(folder)) == 3
    with pytest.raises(ValueError, match="shard2.bin is damaged"):
        TokenStream(folder).read(7, 1)


def test_a_stamp_trusts_the_disk(folder):
    flip_bit(folder / "shard2.bin", 4)  # token 7 is 9
    damaged = verified.state_of((folder / "shard2.bin").stat())
    write_stamp(folder, read_manifest(folder), {"shard2": damaged})  # as if the bit had flipped below the file system
    assert TokenStream(folder).read(7, 1).tolist() == [8]
    assert verify(folder)[0].startswith(f"{folder}/shard2.bin is damaged")


def test_a_file_of_1970_that_nobody_verified_is_compared(tmp_path):
    folder = write_folder(tmp_path / "tokens")
    flip_bit(folder / "shard2.bin", 4)
    os.utime(folder / "shard2.bin", ns=(0, 0))  # as tar and reproducible images set it
    with pytest.raises(ValueError, match="shard2.bin is damaged"):
        TokenStream(folder).read(7, 1)


def test_a_damaged_stamp_is_no_stamp(folder):
    for _ in damages([folder / STAMP_NAME], number=100):
        assert stamp(folder) == {}
    assert set(stamp(folder)) == {"shard0", "shard1", "shard2"}


def test_a_stamp_is_of_one_place_and_one_corpus(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")  # keeps times
    assert stamp(tmp_path / "copy") == {}
    write_folder(folder, shards=[[[1, 9]]])
    assert stamp(folder) == {}


def test_a_file_that_changed_just_now_is_not_stamped(tmp_path, minute_later):
    folder = write_folder(tmp_path / "tokens")
    now = verified.time_ns()
    for name, age in (("shard0", 3 * 10**9), ("shard1", -(10**9)), ("shard2", -60 * 10**9)):
        os.utime(folder / f"{name}.bin", ns=(now - age, now - age))
    assert verify(folder) == []
    assert {name: state.mtime_ns for name, state in stamp(folder).items()} == {"shard0": now - 3 * 10**9}


def test_a_file_that_was_copied_just_now_is_not_stamped(tmp_path):
    folder = write_folder(tmp_path / "tokens")
    for path in folder.glob("*.bin"):
        os.utime(path, ns=(LONG_AGO, LONG_AGO))  # ctime is now
    assert verify(folder) == [] and stamp(folder) == {}


def test_a_stamp_of_something_else_is_no_stamp(folder):
    for states in ([], {"shard2": 5}, {"shard2": [1, 2]}, {"shard2": None}, None):
        write_stamp(folder, read_manifest(folder), states)
        assert stamp(folder) == {}
    assert TokenStream(folder).read(0, 12).tolist() == STREAM


def test_a_stamp_of_a_read_only_folder_is_in_the_users_cache(folder, cache, monkeypatch):
    (folder / STAMP_NAME).unlink()
    write = verified.atomic_file

    def only_in_cache(path):
        if path.is_relative_to(folder):
            raise PermissionError(13, "Permission denied")
        return write(path)

    monkeypatch.setattr(verified, "atomic_file", only_in_cache)
    assert verify(folder) == [] and not (folder / STAMP_NAME).exists()
    assert len(list(cache.rglob("*.json"))) == 1 and len(stamp(folder)) == 3
    monkeypatch.setattr(verified, "_places", lambda folder: [folder / STAMP_NAME])
    assert verify(folder) == [] and stamp(folder) == {}  # nowhere to write: digests are compared
