#!/usr/bin/env bash
# Train on a Slurm cluster, from the repository root:
#   sbatch --nodes=2 launch/slurm.sh --config launch/recipes/NAME.yaml --any_field value
#SBATCH --job-name=hash-layers
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --output=slurm-%j.log
set -euo pipefail

# sbatch runs a copy of this script, so its own path does not lead to the repository.
cd "${SLURM_SUBMIT_DIR:?start this script with sbatch, from the repository root}"

# All ranks meet at the first host; the port differs between jobs that share a host.
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
MASTER_ADDR=${hosts%%$'\n'*}
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
export SRUN_CPUS_PER_TASK="$OMP_NUM_THREADS" # since Slurm 22.05 srun does not take it from the job

# One task is one rank and one GPU.
# shellcheck disable=SC2016  # the variables in quotes are those of each task
srun bash -c '
    export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
    exec "${PYTHON:-.venv/bin/python}" launch/train.py "$@"
' train "$@"
