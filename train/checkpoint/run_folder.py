"""The run folder: what a run leaves where, and whether another run may go on in it."""

import dataclasses
from pathlib import Path

import yaml

from data_prep.storage.atomic_file import atomic_file
from train.checkpoint.commit import completed_checkpoints, read_manifest
from train.checkpoint.recovery import obvious_damage
from train.config.run_config import RunConfig

_RUN_FILE = "run.yaml"


def check_run_folder(config: RunConfig) -> None:
    """ValueError where run_dir holds something that this run would mix with or overwrite, or lacks what it needs."""
    folder = Path(config.run_dir)
    is_empty = not folder.exists() or all(map(_is_of_a_start, folder.iterdir()))
    if not is_empty and not (folder / _RUN_FILE).is_file():
        raise ValueError(f"run_dir {folder} exists, is not empty and is not a run (no run.yaml); choose another folder")
    if not is_empty and config.resume == "never":
        raise ValueError(f"run_dir {folder} holds a run and resume=never; choose another folder, or resume=auto")
    checkpoints = completed_checkpoints(checkpoints_dir(config))
    if not checkpoints and config.resume == "must":
        raise ValueError(f"resume=must, but run_dir {folder} holds no checkpoint; correct run_dir, or start anew")
    reasons = [damage for damage in map(obvious_damage, checkpoints) if damage]
    if checkpoints and len(reasons) == len(checkpoints):
        raise ValueError(
            f"none of the {len(checkpoints)} checkpoints in {checkpoints_dir(config)} is sound ({'; '.join(reasons)}); "
            "restore one from a copy, or begin again in another run_dir"
        )


def _is_of_a_start(path: Path) -> bool:
    """Whether a run that was killed before it had its run.yaml may have left this."""
    return path.name == "heartbeats" or path.name.startswith(f".{_RUN_FILE}.")


def save_run_config(config: RunConfig) -> None:
    """Write run.yaml, which makes run_dir a run."""
    Path(config.run_dir).mkdir(parents=True, exist_ok=True)
    write_recipe(config, Path(config.run_dir) / _RUN_FILE)


def write_recipe(config: RunConfig, path: Path) -> None:
    """Write a recipe that says every field."""
    with atomic_file(path) as file:
        file.write(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False).encode())


# What may change between a run and its resumption: where things lie, over how many ranks and how, how long, how often.
_FREE_FIELDS = {
    "train_data", "eval_data", "route_table", "share_route_table", "max_steps", "micro_batch_size", "max_grad_norm", "grad_norm_scope",
    "ds_config", "activation_checkpointing", "run_dir", "log_every", "eval_every", "eval_sequences", "save_every",
    "resume", "loggers", "dry_run", "dry_run_world_size", "ep_size", "zero_stage", "keep_last", "keep_every",
    "allow_mismatch", "max_nonfinite_steps", "stop_on_failed_save", "async_save", "hang_timeout_seconds", "loader_workers",
}  # fmt: skip


def run_identity(config: RunConfig, *, data: dict) -> dict:
    """What must be equal for a checkpoint to fit a run: the data's digests, the network, the optimizer, the order.

    data: digests by what they are of, and what else the data decide.
    """
    free = _FREE_FIELDS
    if config.sparse_layers and config.router != "hash":
        free = free - {"micro_batch_size"}  # among whose tokens a router that learns balances, drops and chooses
    fields = {name: value for name, value in dataclasses.asdict(config).items() if name not in free}
    return {**data, **fields}


def check_resume(config: RunConfig, identity: dict) -> None:
    """ValueError naming both values where the newest checkpoint was written by another kind of run."""
    unknown = [name for name in config.allow_mismatch if name not in identity]
    if unknown:
        raise ValueError(
            f"allow_mismatch names {unknown[0]!r}, which is not compared; compared are: {', '.join(identity)}"
        )
    folder = next((f for f in completed_checkpoints(checkpoints_dir(config)) if obvious_damage(f) is None), None)
    if folder is None:
        return
    # Checkpoints from before a field existed were written with its default.
    found = {spec.name: spec.default for spec in dataclasses.fields(config)} | read_manifest(folder)["identity"]
    for name, value in identity.items():
        if found.get(name) != value and name not in config.allow_mismatch:
            raise ValueError(
                f"checkpoint {folder} was written with {name}={found.get(name)} but this run has {name}={value}; "
                f"resume with {name}={found.get(name)}, allow it with --allow_mismatch {name}, or start a new run_dir"
            )


def checkpoint_dir(config: RunConfig, step: int) -> Path:
    return checkpoints_dir(config) / f"step_{step:08d}"


def checkpoints_dir(config: RunConfig) -> Path:
    return Path(config.run_dir) / "checkpoints"
