"""The environment of every test: CPU, one thread, no network, no screen; set before the first import."""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DS_ACCELERATOR=cuda make test runs the same tests on a GPU
os.environ.setdefault("OMP_NUM_THREADS", "1")  # distributed tests start several ranks on the same cores
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Let one process of pytest-xdist run all tests of several ranks: two at a time would starve each other."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        if item.get_closest_marker("distributed"):
            item.add_marker(pytest.mark.xdist_group("distributed"))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Data of a tiny run (tests/tiny_run.py), built once per session; tests only read it."""
    from tests.tiny_run import make_tiny_data

    return make_tiny_data(tmp_path_factory.mktemp("tiny_data"))
