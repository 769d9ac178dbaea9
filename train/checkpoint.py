"""Checkpoints of a run: DeepSpeed's files for going on, and beside them a Hugging Face directory for everybody else."""

from pathlib import Path

import deepspeed.comm as dist
from deepspeed.runtime.engine import DeepSpeedEngine

from train.config import RunConfig
from train.export import export_model
from train.inputs import Inputs
from train.run_folder import checkpoints_dir, find_checkpoint, read_state, step_name, write_state


def save_checkpoint(engine: DeepSpeedEngine, config: RunConfig, inputs: Inputs, *, step: int) -> Path:
    """Write checkpoints/step_N and hf/step_N below run_dir; returns the latter. Collective over all ranks.

    A checkpoint counts only once its run_state.json exists, which is written last: DeepSpeed's own `latest` appears
    before the other ranks have finished, and a run that is killed before the model's directory is complete must
    come back to this step to write it.
    """
    folder = checkpoints_dir(config) / step_name(step)
    hf_dir = Path(config.run_dir) / "hf" / folder.name
    engine.save_checkpoint(str(folder.parent), tag=folder.name, save_latest=False)
    export_model(engine.module, hf_dir, tokenizer_dir=inputs.tokenizer_dir)
    dist.barrier()
    if dist.get_rank() == 0:
        write_state(folder, {"step": step, **inputs.identity(config, world_size=dist.get_world_size())})
    return hf_dir


def resume(engine: DeepSpeedEngine, config: RunConfig) -> int:
    """Load the newest checkpoint and return the number of steps done; 0 where there is none. Collective."""
    # Rank 0 looks and tells the others, whose view of a shared disk may lag behind.
    found = [find_checkpoint(config) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(found, src=0)
    folder = found[0]
    if folder is None:
        return 0
    loaded, _ = engine.load_checkpoint(str(folder.parent), tag=folder.name)
    if loaded is None:
        raise ValueError(f"checkpoint {folder} could not be loaded")
    return read_state(folder)["step"]
