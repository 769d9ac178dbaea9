"""Checkpoints of a run: DeepSpeed's files for going on, and beside them a Hugging Face directory for everybody else."""

import dataclasses
import json
import os
from pathlib import Path

import deepspeed.comm as dist
import yaml
from deepspeed.runtime.engine import DeepSpeedEngine

from train.config import RunConfig
from train.export import export_model
from train.inputs import Inputs

_STATE_FILE = "run_state.json"


def save_checkpoint(engine: DeepSpeedEngine, config: RunConfig, inputs: Inputs, *, step: int) -> Path:
    """Write checkpoints/step_N and hf/step_N below run_dir; returns the latter. Collective over all ranks.

    A checkpoint counts only once its run_state.json exists, which is written last: DeepSpeed's own `latest` appears
    before the other ranks have finished.
    """
    name = step_name(step)
    folder = checkpoints_dir(config)
    engine.save_checkpoint(str(folder), tag=name, save_latest=False, client_state={"step": step})
    dist.barrier()
    if dist.get_rank() == 0:
        _write_state(folder / name, run_state(engine, config, step=step))
    hf_dir = Path(config.run_dir) / "hf" / name
    export_model(engine.module, hf_dir, tokenizer_dir=inputs.tokenizer_dir)
    return hf_dir


def resume(engine: DeepSpeedEngine, config: RunConfig) -> int:
    """Load the newest checkpoint and return the number of steps done; 0 where there is none. Collective."""
    folder = find_checkpoint(config)
    if folder is None:
        return 0
    loaded, _ = engine.load_checkpoint(str(folder.parent), tag=folder.name)
    if loaded is None:
        raise ValueError(f"checkpoint {folder} could not be loaded")
    return read_state(folder)["step"]


def check_resume(config: RunConfig, expected: dict) -> None:
    """ValueError naming both values where the newest checkpoint was written by another kind of run.

    expected: what run_state() would say of this run. DeepSpeed itself loads another ep_size without a word and
    scrambles the optimizer.
    """
    folder = find_checkpoint(config) if config.resume else None
    if folder is None:
        return
    found = read_state(folder)
    for name, value in expected.items():
        if name != "step" and found.get(name) != value:
            raise ValueError(
                f"checkpoint {folder} was written with {name}={found.get(name)} but this run has {name}={value}; "
                f"resume with {name}={found.get(name)}, or start a new run_dir"
            )


def find_checkpoint(config: RunConfig) -> Path | None:
    """The complete checkpoint with the most steps, or None."""
    folders = sorted(checkpoints_dir(config).glob("step_*"))
    return next((folder for folder in reversed(folders) if (folder / _STATE_FILE).is_file()), None)


def run_identity(config: RunConfig, *, world_size: int, route_table_digests: list[str] | None) -> dict:
    """What must be equal for a checkpoint to fit a run."""
    names = ("ep_size", "zero_stage", "precision", "optimizer", "num_layers", "width", "sparse_layers", "num_experts")
    identity = {name: getattr(config, name) for name in names}
    return {**identity, "world_size": world_size, "route_table_digests": route_table_digests}


def run_state(engine: DeepSpeedEngine, config: RunConfig, *, step: int) -> dict:
    digests = engine.module.config.route_table_digests
    identity = run_identity(config, world_size=dist.get_world_size(), route_table_digests=digests)
    return {"step": step, **identity}


def save_run_config(config: RunConfig) -> None:
    """Write run.yaml, which makes run_dir a run."""
    Path(config.run_dir).mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)
    (Path(config.run_dir) / "run.yaml").write_text(text)


def read_state(folder: Path) -> dict:
    return json.loads((folder / _STATE_FILE).read_text())


def checkpoints_dir(config: RunConfig) -> Path:
    return Path(config.run_dir) / "checkpoints"


def step_name(step: int) -> str:
    return f"step_{step:08d}"


def _write_state(folder: Path, state: dict) -> None:
    partial = folder / (_STATE_FILE + ".partial")
    partial.write_text(json.dumps(state, indent=2))
    os.replace(partial, folder / _STATE_FILE)
