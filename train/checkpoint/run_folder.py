"""The run folder: whether a run may start or resume in it, and the file that makes a folder a run."""

from pathlib import Path

from train.checkpoint.folders import Checkpoint, find_newest
from train.config.recipe_file import write_recipe
from train.config.resume_compatibility import check_allowed_mismatches, check_compatible
from train.config.run_config import RunConfig
from train.config.run_paths import checkpoints_dir, run_file


def check_run_folder(config: RunConfig) -> Checkpoint | None:
    """The checkpoint that the run would resume from, as far as this can be told without reading its files.

    ValueError if run_dir holds something that this run would mix with or overwrite, or lacks what the run requires.
    """
    folder, run_yaml = Path(config.run_dir), run_file(config.run_dir)
    is_empty = not folder.exists() or all(_is_from_a_killed_start(path, run_yaml) for path in folder.iterdir())
    if not is_empty and not run_yaml.is_file():
        raise ValueError(f"run_dir {folder} exists, is not empty and is not a run (no run.yaml); choose another folder")
    if not is_empty and config.resume == "never":
        raise ValueError(f"run_dir {folder} holds a run and resume=never; choose another folder, or resume=auto")
    checkpoint, problems = find_newest(checkpoints_dir(config.run_dir))
    if checkpoint is None and problems:
        raise ValueError(
            f"none of the {len(problems)} checkpoints in {checkpoints_dir(folder)} is sound ({'; '.join(problems)}); "
            "restore one from a copy, or start again in another run_dir"
        )
    if checkpoint is None and config.resume == "must":
        raise ValueError(f"resume=must, but run_dir {folder} holds no checkpoint; correct run_dir, or resume=auto")
    return checkpoint


def _is_from_a_killed_start(path: Path, run_yaml: Path) -> bool:
    """Whether a run that was killed before it wrote run.yaml may have left this path."""
    return path.name == "heartbeats" or path.name.startswith(f".{run_yaml.name}.")


def check_resume(config: RunConfig, compatibility: dict, checkpoint: Checkpoint | None) -> None:
    """ValueError, with both values, if the checkpoint is from another kind of run, or for a wrong allow_mismatch.

    compatibility: this run's values; see train/config/resume_compatibility.py.
    """
    check_allowed_mismatches(config.allow_mismatch, compatibility)
    if checkpoint is not None:
        stored = checkpoint.manifest["resume_compatibility"]
        check_compatible(stored, compatibility, allow_mismatch=config.allow_mismatch, checkpoint=checkpoint.folder)


def save_run_config(config: RunConfig) -> None:
    """Write run.yaml, which makes run_dir a run."""
    Path(config.run_dir).mkdir(parents=True, exist_ok=True)
    write_recipe(config, run_file(config.run_dir))
