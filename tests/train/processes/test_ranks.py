"""Every launcher sets a process's rank in variables of its own."""

import pytest

from train.processes.ranks import Ranks, is_first_of_its_host, read_ranks

# Rank 3 of 4, the second process on its host, in the variables of each launcher.
LAUNCHERS = {
    "torchrun": {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
    "deepspeed": {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_SIZE": "2"},
    "Slurm": {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_NODES": "2"},
    "Open MPI": {
        "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    },
    "MPICH": {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"},
}  # fmt: skip


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_variables_of_each_launcher_are_read(launcher):
    environ = {**LAUNCHERS[launcher], "MASTER_ADDR": "first-host"}
    assert read_ranks(environ) == Ranks(rank=3, world_size=4, local_rank=1)


def test_without_a_launcher_there_is_a_single_process():
    assert read_ranks({"PATH": "/bin"}) == Ranks(rank=0, world_size=1, local_rank=0)


def test_torchrun_inside_a_slurm_job_takes_precedence():
    assert read_ranks({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "RANK": "1", "WORLD_SIZE": "2"}).rank == 1


def test_a_batch_script_without_srun_is_one_process_whatever_the_size_of_the_job():
    environ = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4", "SLURM_NNODES": "2"}
    assert read_ranks(environ) == Ranks(rank=0, world_size=1, local_rank=0)


@pytest.mark.parametrize("launcher", ["torchrun", "Slurm", "Open MPI", "MPICH"])
def test_several_hosts_need_an_address_to_meet_at(launcher):
    with pytest.raises(ValueError, match="4 processes on several hosts.*MASTER_ADDR"):
        read_ranks(LAUNCHERS[launcher])


ONE_HOST = {
    "torchrun": {"LOCAL_WORLD_SIZE": "4"},
    "Slurm": {"SLURM_STEP_NUM_NODES": "1"},
    "Open MPI": {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"},
    "MPICH": {"MPI_LOCALNRANKS": "4"},
}


@pytest.mark.parametrize("launcher", ONE_HOST)
def test_one_host_needs_no_address(launcher):
    assert read_ranks(LAUNCHERS[launcher] | ONE_HOST[launcher]) == Ranks(rank=3, world_size=4, local_rank=1)


LOCAL_RANKS = ["LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"]


@pytest.mark.parametrize("name", LOCAL_RANKS)
def test_one_process_prints_for_each_host(name):
    assert is_first_of_its_host({name: "0"})
    assert not is_first_of_its_host({name: "1"})


def test_a_process_without_a_launcher_prints_for_its_host():
    assert is_first_of_its_host({})
