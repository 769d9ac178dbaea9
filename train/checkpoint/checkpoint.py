"""Checkpoints of a run: the model for transformers, and beside it the training state to resume from.

checkpoints/step_N is a Hugging Face directory with a folder `training`, where each rank's part of the master weights
and moments lies under names that do not depend on the number of ranks. Everything else that training depends on (data
order, dropout, schedule) follows from the step and the seed.
"""

from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch.distributed as dist
from deepspeed.runtime.engine import DeepSpeedEngine

from train.checkpoint.commit import Snapshot, commit
from train.checkpoint.export import ModelExport, shapes_of, whole_model
from train.checkpoint.files.stored_state import STATE_DIR, StoredState
from train.checkpoint.folders import Checkpoint, prune_checkpoints
from train.checkpoint.host_copy import HostCopy
from train.checkpoint.recovery import latest_valid_checkpoint
from train.checkpoint.state_shards import num_updates, owned_shards, restore_counters, restore_state
from train.config.run_config import RunConfig
from train.config.run_paths import checkpoint_dir, checkpoints_dir
from train.processes.agreement import AllRanks, Group


def facts_of_run(config: RunConfig, export: ModelExport, resume_compatibility: dict) -> dict:
    """What every manifest of a run says. resume_compatibility: see train/config/resume_compatibility.py."""
    return {
        "world_size": dist.get_world_size(),
        "ep_size": config.ep_size,
        "zero_stage": config.zero_stage,
        "shapes": export.shapes,
        "versions": {name: version(name) for name in ("torch", "deepspeed", "transformers")},
        "resume_compatibility": resume_compatibility,
    }


def take_snapshot(
    engine: DeepSpeedEngine,
    config: RunConfig,
    *,
    step: int,
    facts: dict,
    export: ModelExport,
    num_skipped: int = 0,
    host_copy: HostCopy | None = None,
) -> Snapshot:
    """The training state after `step` steps. facts: those of the run.

    host_copy: copies the state, so that training may continue while the snapshot is written; without it, the snapshot
    is a view of the live state.
    """
    shards = owned_shards(engine)
    of_step = {
        "step": step,
        "updates": num_updates(engine),
        "num_skipped": num_skipped,
        "num_samples": step * config.global_batch_size,
    }
    if host_copy:
        shards = host_copy.take(shards)
    return Snapshot(checkpoint_dir(config.run_dir, step), shards, facts | of_step, export)


def save_checkpoint(snapshot: Snapshot, config: RunConfig, group: Group) -> Path:
    """Commit a snapshot, then delete old checkpoints; returns its path. Collective over the group.

    CheckpointError on all ranks if one of them cannot write; the earlier checkpoints are unchanged then.
    """
    if group.gather(group.rank == 0 and snapshot.folder.is_dir())[0]:
        return snapshot.folder  # a sound checkpoint: damaged ones are in quarantine
    commit(snapshot, group)
    if group.rank == 0:
        with suppress(OSError):  # the checkpoint is good, and the next save deletes what this one could not
            prune_checkpoints(snapshot.folder.parent, keep_last=config.keep_last, keep_every=config.keep_every)
    return snapshot.folder


def resume(engine: DeepSpeedEngine, config: RunConfig) -> tuple[dict | None, list[str]]:
    """Restore the newest sound checkpoint. Collective over all ranks.

    Returns its manifest, or None if there is no checkpoint yet, and the notices of latest_valid_checkpoint.
    """
    checkpoint, notices = latest_valid_checkpoint(checkpoints_dir(config.run_dir), AllRanks())
    if checkpoint is None:
        return None, notices
    folder, manifest = checkpoint.folder, checkpoint.manifest
    _check_shapes(checkpoint, shapes_of(whole_model(engine.module.config)))
    state_files = [folder / name for name in sorted(manifest["files"]) if name.startswith(STATE_DIR)]
    restore_state(engine, StoredState(state_files))
    restore_counters(engine, step=manifest["step"], updates=manifest["updates"])
    return manifest, notices


def _check_shapes(checkpoint: Checkpoint, wanted: dict[str, list[int]]) -> None:
    """ValueError if an allowed mismatch makes another network, whose weights would be read from the wrong places."""
    stored = checkpoint.manifest["shapes"]
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise ValueError(
                f"{checkpoint.folder} holds {name} of shape {stored.get(name)}, but this run has {wanted.get(name)}"
            )
