"""A corpus that cannot fit on its disk is refused, and one that may not is a warning."""

from collections import namedtuple

import pytest

from data_prep.storage import free_space
from data_prep.storage.free_space import check_free_space


@pytest.fixture(autouse=True)
def disk_of_100_gb(monkeypatch):
    usage = namedtuple("usage", "free")(100 * 10**9)
    monkeypatch.setattr(free_space.shutil, "disk_usage", lambda folder: usage)


def test_what_fits_is_no_warning(tmp_path):
    assert check_free_space(tmp_path, 100 * 10**9) is None


def test_what_may_not_fit_is_a_warning_with_both_sizes(tmp_path):
    assert "needs about 200.0 GB, but its disk has 100.0 GB left; the est" in check_free_space(tmp_path, 200 * 10**9)


def test_what_cannot_fit_is_refused_with_both_sizes(tmp_path):
    with pytest.raises(OSError, match="needs about 224.0 GB, but its disk has 100.0 GB left; make room, or "):
        check_free_space(tmp_path, 224 * 10**9)
