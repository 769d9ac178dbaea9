"""Run commands of data_prep under mpirun, and write raw shards and a tokenizer for them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.train_tokenizer import save_tokenizer, train_tokenizer
from tests.data_prep.documents.raw_shards import FORMATS, write_raw_shard
from train.processes.project_root import ROOT

MPIRUN = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
ALLOW = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # Open MPI in a container
DOCUMENTS = [f"document {number} has {number * number} words that nobody counted" for number in range(2000)]

needs_mpirun = pytest.mark.skipif(MPIRUN is None, reason="there is no mpirun; pip install mpich brings one")


def start(module, *arguments, num_ranks):
    """Start a command of data_prep on `num_ranks` ranks; 0: without mpirun."""
    launcher = [MPIRUN, "-n", num_ranks] if num_ranks else []
    command = [*launcher, sys.executable, "-m", f"data_prep.{module}", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, env={**os.environ, **ALLOW}, **pipes)


def run(module, *arguments, num_ranks):
    process = start(module, *arguments, num_ranks=num_ranks)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def make_data(folder, num_documents):
    """Write raw shards of `num_documents` documents each, a tokenizer, and the token shards that one process writes."""
    for number, end in enumerate(num_documents):
        documents = (DOCUMENTS * (end // len(DOCUMENTS) + 1))[:end]
        write_raw_shard(folder / "raw" / f"part{number}{FORMATS[number]}", documents)
    save_tokenizer(train_tokenizer(DOCUMENTS[:100], vocab_size=300), folder / "tokenizer")
    assert run("tokenize_shards", *inputs(folder), "--output", folder / "tokens", num_ranks=0)[0] == 0
    return folder


def inputs(data):
    return ["--input", data / "raw", "--tokenizer", data / "tokenizer", "--shard_bytes", 20_000]
