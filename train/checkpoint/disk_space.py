"""Disk space: the size of a run's checkpoints, compared with the free space before the run."""

import os
import shutil
from pathlib import Path

from models.configuration_hash_gpt import HashGPTConfig
from models.parameter_count import count_parameters
from train.config.run_config import RunConfig

MIB = 2**20


def checkpoint_bytes(config: RunConfig, network: HashGPTConfig) -> int:
    """One checkpoint: the model in training precision, master weights, and Adam's two moments; the rest is small."""
    moments = 2 if config.optimizer == "adam" else 0
    bytes_per_parameter = (4 if config.precision == "fp32" else 2) + 4 + 4 * moments
    return count_parameters(network).total * bytes_per_parameter


def num_checkpoints(config: RunConfig) -> int:
    """Checkpoints that are on disk at once, while the last one is being written."""
    written = config.max_steps // config.save_every + 1 if config.save_every else 1
    if config.keep_last == 0:
        return written
    num_kept_for_ever = config.max_steps // config.keep_every if config.keep_every else 0
    return min(written, config.keep_last + num_kept_for_ever + 1)


def check_disk_space(config: RunConfig, network: HashGPTConfig) -> str | None:
    """A notice if the disk may become full during the run, else None. ValueError if not even one checkpoint fits."""
    size, free = checkpoint_bytes(config, network), shutil.disk_usage(_existing(config.run_dir)).free
    if free < size:
        raise ValueError(
            f"a checkpoint takes {size / MIB:,.0f} MiB, but {config.run_dir} has {free / MIB:,.0f} MiB left; "
            "make room, or choose a run_dir on another disk"
        )
    number = num_checkpoints(config)
    if free < size * number:
        return (
            f"note: {number} checkpoints of {size / MIB:,.0f} MiB do not fit into the {free / MIB:,.0f} MiB that "
            f"{config.run_dir} has left; keep fewer with --keep_last"
        )


def _existing(path: str) -> Path:
    """The folder itself, or the nearest of its parents that exists."""
    whole = Path(os.path.abspath(path))
    return next(folder for folder in [whole, *whole.parents] if folder.exists())
