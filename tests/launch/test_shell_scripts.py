"""The cluster scripts start one training process per rank, with its rank, world size and master address."""

import os
import subprocess

import pytest

from train.processes.project_root import ROOT

LAUNCH = ROOT / "launch"

# A stand-in for python: prints the variables of a rank, and its command line.
PYTHON = 'echo "rank $RANK of $WORLD_SIZE, local $LOCAL_RANK, master $MASTER_ADDR: $@"'
# Stand-ins for the launchers: they run their last arguments twice, as ranks 0 and 1.
SRUN = """[ "$1" = --kill-on-bad-exit=1 ] || exit 1
shift
for rank in 0 1; do SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@"; done"""
OPEN_MPI = """echo "options $1 $2 $3"
while [ "$1" != env ]; do shift; done
for rank in 0 1; do
    OMPI_COMM_WORLD_RANK=$rank OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=$rank "$@"
done"""
MPICH = OPEN_MPI.replace("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID").replace("OMPI_COMM_WORLD", "PMI")


@pytest.fixture
def start(tmp_path):
    """Run a script of launch/ with stand-ins for the programs that it calls, and return its output."""

    def run(script, *options, programs, **environment):
        for name, body in {"python": PYTHON, **programs}.items():
            (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
            (tmp_path / name).chmod(0o755)
        path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": str(tmp_path / "python")}
        command = ["bash", str(LAUNCH / script), *options]
        return subprocess.run(command, env=path | environment, check=True, capture_output=True, text=True).stdout

    return run


def ranks(master):
    command = "launch/train.py --config a b.yaml"
    return "".join(f"rank {rank} of 2, local {rank}, master {master}: {command}\n" for rank in (0, 1))


@pytest.mark.parametrize("script", sorted(path.name for path in LAUNCH.glob("*.sh")))
def test_bash_can_parse_the_script(script):
    assert subprocess.run(["bash", "-n", str(LAUNCH / script)]).returncode == 0


def test_slurm_tasks_connect_to_the_first_host(start, tmp_path):
    job = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NTASKS": "2"}
    programs = {"srun": SRUN, "scontrol": "echo n1; echo n2"}
    assert start("slurm.sh", "--config", "a b.yaml", programs=programs, **job) == ranks("n1")


@pytest.mark.parametrize("mpirun", [OPEN_MPI, MPICH], ids=["Open MPI", "MPICH"])
def test_mpi_ranks_connect_to_the_first_host_of_the_hostfile(start, mpirun):
    hostfile = str(LAUNCH / "hostfile.example")
    output = start(
        "mpi.sh", "--config", "a b.yaml", programs={"mpirun": mpirun}, NUM_RANKS="2", HOSTFILE=hostfile
    )  # fmt: skip
    assert output == "options -n 2 -hostfile\n" + ranks("host-1")


def test_without_a_hostfile_all_ranks_run_on_this_host(start):
    output = start("mpi.sh", "--config", "a b.yaml", programs={"mpirun": OPEN_MPI}, NUM_RANKS="2")
    assert output == "options -n 2 env\n" + ranks("127.0.0.1")
