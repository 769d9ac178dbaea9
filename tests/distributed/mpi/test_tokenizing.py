"""Ranks under mpirun write the token shards of one process; if one rank ends, all end, and nothing is lost."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.data_prep.documents.raw_shards import FORMATS
from tests.data_prep.tokenizing.test_interrupted import all_files, contents, recorded_files
from tests.distributed.mpi.mpirun import inputs, make_data, needs_mpirun, run, start

pytestmark = [pytest.mark.distributed, needs_mpirun]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), [50 * number**2 for number in range(7)])


@pytest.fixture(scope="module")
def long_data(tmp_path_factory):
    """Data whose last raw shard takes a second to read, which is time to kill a rank."""
    return make_data(tmp_path_factory.mktemp("long_data"), [10, 20, 30, 10000])


@pytest.mark.parametrize(("num_ranks", "num_workers"), [(1, 1), (2, 2), (3, 1), (8, 1)])
def test_ranks_write_the_token_shards_of_one_process(data, tmp_path, num_ranks, num_workers):
    arguments = [*inputs(data), "--output", tmp_path / "tokens", "--workers", num_workers]
    status, output, errors = run("tokenize_shards", *arguments, num_ranks=num_ranks)
    assert status == 0, errors
    assert output.count("tokens in 9 shards") == 1  # rank 0 reports for all
    assert contents(tmp_path / "tokens") == contents(data / "tokens")


def test_a_damaged_raw_shard_is_named_once_and_ends_all_ranks(data, tmp_path):
    shutil.copytree(data / "raw", tmp_path / "raw")
    damaged = tmp_path / "raw" / f"part5{FORMATS[5]}"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-4])
    arguments = ["--input", tmp_path / "raw", *inputs(data)[2:], "--output", tmp_path / "tokens"]
    status, _, errors = run("tokenize_shards", *arguments, num_ranks=3)
    assert status == 2
    assert errors.count("error: ") == errors.count(f"{damaged} is damaged near byte") == 1
    damaged.write_bytes(content)
    assert run("tokenize_shards", *arguments, num_ranks=2)[0] == 0
    assert contents(tmp_path / "tokens") == contents(data / "tokens")


def test_a_folder_that_is_refused_is_refused_once(data):
    status, _, errors = run("tokenize_shards", *inputs(data), "--output", data / "tokens", num_ranks=2)
    assert (status, errors.count("tokens is not empty; give another --output")) == (2, 1)


def test_processes_unknown_to_mpi_are_refused(data, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    status, _, errors = run("tokenize_shards", *inputs(data), "--output", tmp_path / "tokens", num_ranks=0)
    assert status == 2 and "error: Slurm started 4 processes, but MPI counts 1: mpi4py uses another" in errors
    assert not (tmp_path / "tokens").exists()


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_other_ranks_finish_the_work_of_a_killed_rank(long_data, tmp_path, victim):
    arguments = [*inputs(long_data), "--output", tmp_path / "tokens"]
    process = start("tokenize_shards", *arguments, num_ranks=3)
    wait_for(lambda: list((tmp_path / "tokens").glob("*.done.json")))
    os.kill(find_rank(victim, str(tmp_path)), signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0
    kept = recorded_files(tmp_path / "tokens")
    assert run("tokenize_shards", *arguments, num_ranks=2)[0] == 0
    assert kept.items() <= all_files(tmp_path / "tokens").items() and kept
    assert contents(tmp_path / "tokens") == contents(long_data / "tokens")


def find_rank(rank, argument):
    """The process id of a rank, from Linux's /proc."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environ, words = ((folder / name).read_bytes().split(b"\0") for name in ("environ", "cmdline"))
        except OSError:  # it has ended
            continue
        names = {f"{name}={rank}".encode() for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK")}
        if names & set(environ) and b"data_prep.tokenize_shards" in words and argument in str(words):
            return int(folder.name)
    raise AssertionError(f"rank {rank} is not running")


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)
