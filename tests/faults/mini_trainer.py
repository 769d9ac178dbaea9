"""A trainer of several ranks without DeepSpeed: the project's sample order, checkpoints and recovery around a toy.

The update is a chain: every loss depends on all samples before it in their order, so that a repeated, missing or
swapped sample, and a single lost bit of the state, change all losses after it.
"""

import json
import os
from pathlib import Path

import torch
import torch.distributed as dist

from train.checkpoint.commit import Snapshot, commit
from train.checkpoint.files.stored_state import WEIGHT, StateShard, StoredState
from train.checkpoint.folders import prune_checkpoints
from train.checkpoint.recovery import latest_valid_checkpoint
from train.config.run_paths import checkpoint_dir, checkpoints_dir
from train.data.sample_order import SampleOrder
from train.processes.agreement import AllRanks

SIZE, GLOBAL_BATCH, NUM_SAMPLES = 50_000, 8, 1000


def train(*, rank: int, world_size: int, port: int, run_dir: Path, num_steps: int, save_every: int) -> None:
    """Train from the newest valid checkpoint to the end. Collective over all ranks."""
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)
    state = torch.linspace(0, 1, SIZE)
    checkpoint, _ = latest_valid_checkpoint(checkpoints_dir(run_dir), AllRanks())
    first_step = 0
    if checkpoint is not None:
        first_step = checkpoint.manifest["step"]
        paths = [checkpoint.folder / name for name in checkpoint.manifest["files"]]
        StoredState(paths).read(WEIGHT, "state", 0, state)
    order = SampleOrder(NUM_SAMPLES, seed=0)
    for step in range(first_step, num_steps):
        samples = order.samples(step * GLOBAL_BATCH, GLOBAL_BATCH).reshape(world_size, -1)[rank]
        _log(run_dir, rank, {"step": step, "loss": _update(state, samples).hex()})
        if (step + 1) % save_every == 0:
            _save(checkpoint_dir(run_dir, step + 1), state, step + 1, rank=rank, world_size=world_size)
            _log(run_dir, rank, {"saved": step + 1})
    dist.barrier()


def _update(state: torch.Tensor, samples) -> float:
    """One step on the samples of all ranks, whichever rank holds them; returns its loss."""
    contributions = torch.zeros(NUM_SAMPLES, dtype=torch.int64)
    contributions[torch.from_numpy(samples)] += 1
    dist.all_reduce(contributions)
    weight = float((contributions * torch.arange(NUM_SAMPLES)).sum()) / NUM_SAMPLES
    state.mul_(1.01).add_(torch.sin(weight * state))
    state.remainder_(1.0)
    return float(state.double().sum())


def _save(folder: Path, state: torch.Tensor, step: int, *, rank: int, world_size: int) -> None:
    begin, end = (SIZE * part // world_size for part in (rank, rank + 1))
    commit(Snapshot(folder, [StateShard("state", WEIGHT, begin, state[begin:end])], {"step": step}), AllRanks())
    if rank == 0:
        prune_checkpoints(folder.parent, keep_last=2, keep_every=0)


def _log(run_dir: Path, rank: int, record: dict) -> None:
    if rank == 0:
        with open(run_dir / "log.jsonl", "ab", buffering=0) as file:
            file.write((json.dumps(record | {"pid": os.getpid()}) + "\n").encode())
