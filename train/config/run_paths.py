"""Run paths: the files in the folder of a run, and the names of its checkpoints."""

from pathlib import Path


def run_file(run_dir: str | Path) -> Path:
    """The recipe of the run with every field; a folder that has it is a run."""
    return Path(run_dir) / "run.yaml"


def events_file(run_dir: str | Path) -> Path:
    return Path(run_dir) / "events.jsonl"


def checkpoints_dir(run_dir: str | Path) -> Path:
    return Path(run_dir) / "checkpoints"


def checkpoint_dir(run_dir: str | Path, step: int) -> Path:
    return checkpoints_dir(run_dir) / f"step_{step:08d}"


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step_"))


def completed_checkpoints(checkpoints: Path) -> list[Path]:
    """The folders with a final name, newest first; their contents are not checked."""
    return sorted((path for path in checkpoints.glob("step_*") if path.suffix == "" and path.is_dir()), reverse=True)
