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

# sbatch runs a copy of this script, so the path of the script does not lead to the repository.
cd "${SLURM_SUBMIT_DIR:?start this script with sbatch, from the repository root}"

# All ranks connect to the first host; jobs that share a host get different ports.
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
MASTER_ADDR=${hosts%%$'\n'*}
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
export SRUN_CPUS_PER_TASK="$OMP_NUM_THREADS" # since Slurm 22.05, srun does not inherit it from the job

# One task is one rank and one GPU. A rank that fails ends the others, which may wait for it.
# shellcheck disable=SC2016  # each task expands the quoted variables
srun --kill-on-bad-exit=1 bash -c '
    export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
    exec "${PYTHON:-.venv/bin/python}" launch/train.py "$@"
' train "$@"
