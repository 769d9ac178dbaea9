"""The environment variables in which each launcher describes the processes that it starts."""

from typing import NamedTuple


class Launcher(NamedTuple):
    """The names of one launcher's variables."""

    rank: str
    world_size: str
    local_rank: str
    local_size: str  # number of processes on this host; "" if the launcher does not set it


# Slurm's variables are those of a step: a batch script that calls python without srun is one process, whatever the
# number of tasks of the job. Open MPI comes before Slurm, because mpirun starts its daemons as a step of Slurm.
LAUNCHERS = {
    "torchrun or deepspeed": Launcher("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "Open MPI": Launcher(
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "Slurm": Launcher("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", ""),
    "MPICH": Launcher("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
}
