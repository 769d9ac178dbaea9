#!/usr/bin/env bash
# Train under mpirun (Open MPI, MPICH, Intel MPI), from the repository root:
#   NUM_RANKS=16 HOSTFILE=launch/hostfile launch/mpi.sh --config launch/recipes/NAME.yaml --any_field value
# Without HOSTFILE, all ranks run on this host. MPI only starts the processes; they communicate over NCCL or gloo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# All ranks connect to the first host of the hostfile ("host slots=8", or MPICH's "host:8").
if [ -n "${HOSTFILE:-}" ]; then
    MASTER_ADDR=$(awk 'NF && $1 !~ /^#/ { split($1, part, ":"); print part[1]; exit }' "$HOSTFILE")
fi
export MASTER_ADDR="${MASTER_ADDR:-127.0.0.1}" MASTER_PORT="${MASTER_PORT:-29500}"

# Each MPI has its own variables for rank, world size and local rank. MASTER_* are passed as arguments,
# because Open MPI does not pass the environment to other hosts.
# shellcheck disable=SC2016  # each rank expands the quoted variables
exec mpirun -n "${NUM_RANKS:?set NUM_RANKS to the number of ranks}" ${HOSTFILE:+-hostfile "$HOSTFILE"} \
    env MASTER_ADDR="$MASTER_ADDR" MASTER_PORT="$MASTER_PORT" bash -c '
    export RANK=${OMPI_COMM_WORLD_RANK:-$PMI_RANK}
    export WORLD_SIZE=${OMPI_COMM_WORLD_SIZE:-$PMI_SIZE}
    export LOCAL_RANK=${OMPI_COMM_WORLD_LOCAL_RANK:-${MPI_LOCALRANKID:-0}}
    exec "${PYTHON:-.venv/bin/python}" launch/train.py "$@"
' train "$@"
