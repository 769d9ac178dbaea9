"""Any number of files is read with few descriptors, and none is closed under a reader."""

import os
import resource

import pytest

from data_prep.storage import open_files
from data_prep.storage.open_files import OpenFile, RecentlyUsed


@pytest.fixture
def limits(monkeypatch):
    """The limits of a process, soft and hard, which a test may set."""
    limits = [1024, 1024]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: limits.__setitem__(slice(None), pair))
    open_files.max_open_files.cache_clear()
    yield limits
    open_files.max_open_files.cache_clear()


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "expected"),
    [
        (256, 256, 256, 64),
        (256, 1024, 1024, 256),
        (1024, 10**6, 4096, 1024),
        (256, resource.RLIM_INFINITY, 4096, 1024),
        (10**6, 10**6, 10**6, 1024),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, resource.RLIM_INFINITY, 1024),
        (3, 3, 3, 1),
    ],
)
def test_a_quarter_of_the_descriptors_is_used_and_the_soft_limit_raised(limits, soft, hard, raised, expected):
    limits[:] = soft, hard
    assert open_files.max_open_files() == expected
    assert limits == [raised, hard]


def test_a_limit_that_may_not_be_raised_is_kept(limits, monkeypatch):
    def refuse(kind, pair):
        raise ValueError("not allowed")

    limits[:] = 256, 4096
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert open_files.max_open_files() == 64


def test_the_least_recently_used_is_forgotten(monkeypatch):
    monkeypatch.setattr(open_files, "max_open_files", lambda: 2)
    made, recent = [], RecentlyUsed()

    def get(key):
        return recent.get(key, lambda: made.append(key) or key)

    for key in "abacbab":
        get(key)
    assert "".join(made) == "abcba"


def num_open() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_file_is_closed_when_nothing_refers_to_it_and_not_before(tmp_path, monkeypatch):
    monkeypatch.setattr(open_files, "max_open_files", lambda: 1)
    for name in ("a", "b"):
        (tmp_path / name).write_text(name * 3)
    recent, before = RecentlyUsed(), num_open()
    first = recent.get("a", lambda: OpenFile(tmp_path / "a"))
    recent.get("b", lambda: OpenFile(tmp_path / "b"))
    assert first.read(1, 2) == b"aa" and num_open() == before + 2  # a reader still has it
    del first
    assert num_open() == before + 1


def test_a_file_knows_its_size_and_time_and_an_end_that_comes_early_is_an_error(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    os.utime(path, ns=(5, 7))
    file = OpenFile(path)
    assert (file.num_bytes, file.status.st_mtime_ns, file.read(8, 2), file.read(3, 0)) == (10, 7, b"89", b"")
    with pytest.raises(ValueError, match="file had 10 bytes when it was opened, but now ends after 10; copy it again"):
        file.read(8, 3)


def test_a_file_that_does_not_exist_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        OpenFile(tmp_path / "none")
