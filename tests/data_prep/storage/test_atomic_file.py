"""A file appears under its name when it is complete, or never."""

import os
import resource
import signal
import socket

import pytest

from data_prep.storage.atomic_file import atomic_file, temporary_path


def test_an_error_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "new" / "file") as file:
        file.write(b"half")
        raise RuntimeError
    assert list((tmp_path / "new").iterdir()) == []


def test_an_error_leaves_the_old_file(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "file") as file:
        file.write(b"half")
        raise RuntimeError
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_the_final_name_appears_only_at_the_end(tmp_path):
    with atomic_file(tmp_path / "file") as file:
        file.write(b"whole")
        file.flush()
        assert not (tmp_path / "file").exists()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"whole")]


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_the_old_one(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with (
            pytest.raises(OSError, match=rf"File too large: '{tmp_path}/file'"),
            atomic_file(tmp_path / "file") as file,
        ):
            for _ in range(10):
                file.write(bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_two_processes_of_one_number_on_two_hosts_write_different_temporary_files(tmp_path):
    first, second = (temporary_path(tmp_path / "file") for _ in range(2))
    assert first != second and first.parent == tmp_path
    assert first.name.startswith(f".file.{socket.gethostname()[:20]}.{os.getpid()}.") and first.name.endswith(".tmp")
