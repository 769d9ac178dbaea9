"""Checkpoints of a run: the model for everybody, and beside it the training state for going on.

checkpoints/step_N is a Hugging Face directory with a folder `training`, where each rank's part of the master weights
and moments lies under names that do not depend on the number of ranks. train/checkpoint/commit.py makes it appear
whole or not at all. Everything else that training depends on (data order, dropout, schedule) follows from the step and
the seed.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch.distributed as dist
from deepspeed.runtime.engine import DeepSpeedEngine

from train.checkpoint.commit import commit_checkpoint, prune_checkpoints, read_manifest
from train.checkpoint.export import export_model, shapes_of_whole
from train.checkpoint.state_shards import num_updates, owned_shards, restore_counters, restore_state
from train.checkpoint.recovery import latest_valid_checkpoint
from train.checkpoint.run_folder import checkpoint_dir, checkpoints_dir
from train.checkpoint.stored_state import StateShard, StoredState, write_shards
from train.config.run_config import RunConfig
from train.inputs import Inputs
from train.processes.agreement import gather

_STATE_DIR = "training"


def save_checkpoint(
    engine: DeepSpeedEngine, config: RunConfig, inputs: Inputs, *, step: int, num_skipped: int = 0
) -> Path:
    """Write and commit checkpoints/step_N, and delete old ones; returns its path. Collective over all ranks.

    CheckpointError on all ranks where one of them could not write; the checkpoints before are as they were.
    """
    return prepare_checkpoint(engine, config, inputs, step=step, num_skipped=num_skipped)(gather)


def prepare_checkpoint(
    engine: DeepSpeedEngine,
    config: RunConfig,
    inputs: Inputs,
    *,
    step: int,
    num_skipped: int = 0,
    copy: bool = False,
) -> Callable[[Callable[[object], list]], Path]:
    """What save_checkpoint does, as a function of `gather`, to be called on all ranks.

    copy: of the state as it is now, so that training may go on meanwhile.
    """
    fragments = [replace(f, values=f.values.clone()) if copy else f for f in owned_shards(engine)]
    facts = {
        "step": step,
        "updates": num_updates(engine),
        "num_skipped": num_skipped,
        "num_samples": step * config.global_batch_size,
        "world_size": dist.get_world_size(),
        "ep_size": config.ep_size,
        "zero_stage": config.zero_stage,
        "shapes": shapes_of_whole(engine.module.config),
        "versions": {name: version(name) for name in ("torch", "deepspeed", "transformers")},
        "identity": inputs.identity(config),
    }
    return lambda gather: _commit(engine, config, inputs, checkpoint_dir(config, step), fragments, facts, gather)


def _commit(
    engine: DeepSpeedEngine,
    config: RunConfig,
    inputs: Inputs,
    folder: Path,
    fragments: list[StateShard],
    facts: dict,
    gather: Callable[[object], list],
) -> Path:
    rank = dist.get_rank()
    if gather(rank == 0 and folder.is_dir())[0]:
        return folder  # only a sound one keeps this name: damaged ones are set aside

    def write(partial: Path) -> list[str]:
        state = f"{_STATE_DIR}/rank_{rank:05d}.safetensors"
        (partial / _STATE_DIR).mkdir(exist_ok=True)
        write_shards(partial / state, fragments)
        return [state]

    def write_once(partial: Path) -> list[str]:
        stored = StoredState(sorted((partial / _STATE_DIR).glob("*.safetensors")))
        return export_model(engine.module, stored, partial, tokenizer_dir=inputs.tokenizer_dir)

    commit_checkpoint(folder, write, facts, rank=rank, gather=gather, write_once=write_once)
    if rank == 0:
        with suppress(OSError):  # the checkpoint is good, and the next one will delete what is left
            prune_checkpoints(checkpoints_dir(config), keep_last=config.keep_last, keep_every=config.keep_every)
    return folder


def resume(engine: DeepSpeedEngine, config: RunConfig) -> tuple[dict | None, list[str]]:
    """Restore the newest sound checkpoint. Collective over all ranks.

    Returns its manifest, None where the run begins, and what latest_valid_checkpoint has to say.
    """
    folder, notices = latest_valid_checkpoint(checkpoints_dir(config), rank=dist.get_rank(), gather=gather)
    if folder is None:
        return None, notices
    manifest = read_manifest(folder)
    _check_shapes(folder, manifest["shapes"], shapes_of_whole(engine.module.config))
    state_files = [folder / name for name in sorted(manifest["files"]) if name.startswith(_STATE_DIR)]
    restore_state(engine, StoredState(state_files))
    restore_counters(engine, step=manifest["step"], updates=manifest["updates"])
    return manifest, notices


def _check_shapes(folder: Path, stored: dict[str, list[int]], wanted: dict[str, list[int]]) -> None:
    """ValueError where a mismatch that was allowed made another network: its weights would be cut from those stored."""
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise ValueError(f"{folder} holds {name} of shape {stored.get(name)}, but this run has {wanted.get(name)}")
