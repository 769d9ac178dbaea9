"""Checkpoints of a run: the model for everybody, and beside it the training state for going on.

checkpoints/step_N is a Hugging Face directory with a folder `training`, where each rank's part of the master weights
and moments lies under names that do not depend on the number of ranks. train/commit.py makes it appear whole or not
at all. Everything else that training depends on (data order, dropout, schedule) follows from the step and the seed.
"""

from importlib.metadata import version
from pathlib import Path

import deepspeed.comm as dist
from deepspeed.runtime.engine import DeepSpeedEngine

from train.commit import commit_checkpoint, prune_checkpoints, read_manifest
from train.config import RunConfig
from train.export import export_model
from train.fragments import num_updates, owned_fragments, restore_counters, restore_state
from train.inputs import Inputs
from train.recovery import settle_on_checkpoint
from train.run_folder import checkpoint_dir, checkpoints_dir
from train.stored_state import StoredState, write_fragments

_STATE_DIR = "training"


def save_checkpoint(
    engine: DeepSpeedEngine, config: RunConfig, inputs: Inputs, *, step: int, num_skipped: int = 0
) -> Path:
    """Write and commit checkpoints/step_N, and delete old ones; returns its path. Collective over all ranks.

    CheckpointError on all ranks where one of them could not write; the checkpoints before are as they were.
    """
    folder, rank = checkpoint_dir(config, step), dist.get_rank()
    if _gather(rank == 0 and folder.is_dir())[0]:
        return folder  # only a sound one keeps this name: damaged ones are set aside

    def write(partial: Path) -> list[str]:
        errors = export_model(engine.module, partial, tokenizer_dir=inputs.tokenizer_dir)
        if errors:
            raise errors[0]
        exported = [str(path.relative_to(partial)) for path in partial.rglob("*") if path.is_file()]
        state = f"{_STATE_DIR}/rank_{rank:05d}.safetensors"
        (partial / _STATE_DIR).mkdir(exist_ok=True)
        write_fragments(partial / state, owned_fragments(engine))
        return [state, *(name for name in exported if rank == 0 and not name.startswith(_STATE_DIR))]

    facts = {
        "step": step,
        "updates": num_updates(engine),
        "num_skipped": num_skipped,
        "num_samples": step * config.global_batch_size,
        "world_size": dist.get_world_size(),
        "ep_size": config.ep_size,
        "zero_stage": config.zero_stage,
        "versions": {name: version(name) for name in ("torch", "deepspeed", "transformers")},
        "identity": inputs.identity(config),
    }
    commit_checkpoint(folder, write, facts, rank=rank, gather=_gather)
    if rank == 0:
        prune_checkpoints(checkpoints_dir(config), keep_last=config.keep_last, keep_every=config.keep_every)
    return folder


def resume(engine: DeepSpeedEngine, config: RunConfig) -> tuple[dict | None, list[str]]:
    """Restore the newest sound checkpoint. Collective over all ranks.

    Returns its manifest, None where the run begins, and what settle_on_checkpoint has to say.
    """
    folder, notices = settle_on_checkpoint(checkpoints_dir(config), rank=dist.get_rank(), gather=_gather)
    if folder is None:
        return None, notices
    manifest = read_manifest(folder)
    state_files = [folder / name for name in sorted(manifest["files"]) if name.startswith(_STATE_DIR)]
    restore_state(engine, StoredState(state_files))
    restore_counters(engine, step=manifest["step"], updates=manifest["updates"])
    return manifest, notices


def _gather(value) -> list:
    """The values of all ranks. Collective."""
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
