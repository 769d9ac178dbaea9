"""Ranks are read from the launcher's environment, and work is divided so that every item has one owner."""

import subprocess
import sys

import pytest

from data_prep.processes.mpi_ranks import ONE_PROCESS, divide, find_ranks, launched


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ("", 1)),
        ({"PMI_SIZE": "3", "PMI_RANK": "0"}, ("MPICH", 3)),
        ({"OMPI_COMM_WORLD_SIZE": "4", "SLURM_STEP_NUM_TASKS": "2"}, ("Open MPI", 4)),  # 2: mpirun's daemons
        ({"SLURM_STEP_NUM_TASKS": "5"}, ("Slurm", 5)),
        ({"SLURM_NTASKS": "5"}, ("", 1)),  # a batch script that calls python without srun
    ],
)
def test_a_launcher_is_recognised_by_its_environment(environ, expected):
    assert launched(environ) == expected


def test_one_process_imports_no_mpi():
    check = (
        "import sys, data_prep.tokenize_shards as t; t.find_ranks({'PMI_SIZE': '1'}); sys.exit('mpi4py' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    assert find_ranks({}) is ONE_PROCESS


def test_several_processes_without_mpi4py_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ValueError, match="MPICH started 2 processes, but mpi4py cannot be imported: .*start one"):
        find_ranks({"PMI_SIZE": "2"})


def test_the_largest_items_are_dealt_first():
    assert divide([1, 7, 2, 2, 5, 1], 2) == [[1, 3], [0, 2, 4, 5]]  # 9 and 9
    assert divide([5, 5], 3) == [[0], [1], []]
    assert divide([], 2) == [[], []]


def test_items_of_unknown_size_are_spread_over_all_shares():
    assert divide([0] * 8, 4) == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert divide([0, 9, 0, 0], 2) == [[1], [0, 2, 3]]
