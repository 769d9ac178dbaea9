"""The environment of every test: the CPU, one thread, no network and no screen, set before anything is imported."""

import os
import sys
from pathlib import Path

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DS_ACCELERATOR=cuda make test runs the same tests on a GPU
os.environ.setdefault("OMP_NUM_THREADS", "1")  # distributed tests start several ranks on the same cores
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
