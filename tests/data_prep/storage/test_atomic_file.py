"""A file appears under its name when it is complete, or never."""

import pytest

from data_prep.storage.atomic_file import atomic_file


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
