"""Resume compatibility: the values that must be equal for a run to resume from a checkpoint."""

import dataclasses
from pathlib import Path

from train.config.run_config import RunConfig


def resume_compatibility(config: RunConfig, *, data: dict) -> dict:
    """By name: the digests of the data, and every field that decides network, optimizer or order of the samples.

    data: the digests, and other values that depend on the data.
    """
    free = {spec.name for spec in dataclasses.fields(config) if spec.metadata.get("free_on_resume")}
    if config.sparse_layers and config.router != "hash":
        free -= {"micro_batch_size"}  # learned routers balance, drop and select tokens within a micro-batch
    fields = {name: value for name, value in dataclasses.asdict(config).items() if name not in free}
    return {**data, **fields}


def check_allowed_mismatches(allow_mismatch: list[str], wanted: dict) -> None:
    """ValueError if a name in allow_mismatch is not among the compared values."""
    for name in allow_mismatch:
        if name not in wanted:
            raise ValueError(f"allow_mismatch names {name!r}, which is not compared; compared are: {', '.join(wanted)}")


def check_compatible(stored: dict, wanted: dict, *, allow_mismatch: list[str], checkpoint: Path) -> None:
    """ValueError, with both values, if the checkpoint's values differ from those of this run."""
    for name, value in wanted.items():
        if stored.get(name) != value and name not in allow_mismatch:
            raise ValueError(
                f"checkpoint {checkpoint} was written with {name}={stored.get(name)} but this run has {name}={value}; "
                f"resume with {name}={stored.get(name)}, allow it with --allow_mismatch {name}, or start a new run_dir"
            )
