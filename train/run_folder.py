"""The run folder: what a run leaves where, and whether another run may go on in it."""

import dataclasses
import json
import os
from pathlib import Path

import yaml

from train.config import RunConfig

_RUN_FILE = "run.yaml"
_STATE_FILE = "run_state.json"


def check_run_folder(config: RunConfig) -> None:
    """ValueError where run_dir holds something that this run would mix with or overwrite."""
    folder = Path(config.run_dir)
    if not folder.exists() or not any(folder.iterdir()):
        if config.resume:
            raise ValueError(
                f"--resume, but run_dir {folder} holds no run to go on with; correct run_dir, or start anew"
            )
        return
    if not (folder / _RUN_FILE).is_file():
        raise ValueError(f"run_dir {folder} exists, is not empty and is not a run (no run.yaml); choose another folder")
    if not config.resume:
        raise ValueError(f"run_dir {folder} holds a run; pass --resume to go on with it, or choose another folder")


def save_run_config(config: RunConfig) -> None:
    """Write run.yaml, which makes run_dir a run."""
    Path(config.run_dir).mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)
    (Path(config.run_dir) / _RUN_FILE).write_text(text)


# What may change between a run and its resumption: where things lie, how long, how often, how fast.
_FREE_FIELDS = {
    "train_data", "valid_data", "route_table", "share_route_table", "steps", "micro_batch_size", "clip", "clip_norm",
    "ds_config", "activation_checkpointing", "run_dir", "log_every", "eval_every", "eval_sequences", "save_every",
    "resume",     "monitors", "dry_run", "plan_ranks",
}  # fmt: skip


def run_identity(
    config: RunConfig,
    *,
    world_size: int,
    corpus_digest: str,
    route_table_digests: list[str] | None,
    predictions_digest: str | None = None,
) -> dict:
    """What must be equal for a checkpoint to fit a run: network, data, their order, optimizer and ranks.

    The optimizer's settings are among it because DeepSpeed restores them from the checkpoint: a new learning rate
    would be accepted and ignored.
    """
    fields = {name: value for name, value in dataclasses.asdict(config).items() if name not in _FREE_FIELDS}
    data = {"corpus_digest": corpus_digest, "route_table_digests": route_table_digests}
    data |= {"predictions_digest": predictions_digest}
    return {**fields, **data, "world_size": world_size}


def check_resume(config: RunConfig, identity: dict) -> None:
    """ValueError naming both values where the newest checkpoint was written by another kind of run.

    DeepSpeed itself loads another ep_size without a word and scrambles the optimizer.
    """
    folder = find_checkpoint(config) if config.resume else None
    if folder is None:
        return
    found = read_state(folder)
    for name, value in identity.items():
        if found.get(name) != value:
            raise ValueError(
                f"checkpoint {folder} was written with {name}={found.get(name)} but this run has {name}={value}; "
                f"resume with {name}={found.get(name)}, or start a new run_dir"
            )


def find_checkpoint(config: RunConfig) -> Path | None:
    """The complete checkpoint with the most steps, or None."""
    folders = sorted(checkpoints_dir(config).glob("step_*"))
    return next((folder for folder in reversed(folders) if (folder / _STATE_FILE).is_file()), None)


def write_state(folder: Path, state: dict) -> None:
    """Write run_state.json, which makes the folder a complete checkpoint."""
    partial = folder / (_STATE_FILE + ".partial")
    partial.write_text(json.dumps(state, indent=2))
    os.replace(partial, folder / _STATE_FILE)


def read_state(folder: Path) -> dict:
    return json.loads((folder / _STATE_FILE).read_text())


def checkpoints_dir(config: RunConfig) -> Path:
    return Path(config.run_dir) / "checkpoints"


def step_name(step: int) -> str:
    return f"step_{step:08d}"
