"""The environment of every test: the CPU, one thread, no network and no screen, set before anything is imported."""

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


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Data of a tiny run (tests/tiny_run.py), made once per session and only read afterwards."""
    from tests.tiny_run import make_tiny_data

    return make_tiny_data(tmp_path_factory.mktemp("tiny_data"))
