"""The checkpoints of a run on disk: open, find, quarantine and delete them."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from data_prep.storage.atomic_file import sync_folder
from train.checkpoint.files.manifest import OtherSchemaError, check_digests, check_sizes, read_manifest
from train.config.run_paths import checkpoints_dir, completed_checkpoints, step_of

_DAMAGED = ".damaged"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose manifest is sound and whose files have the right sizes."""

    folder: Path
    manifest: dict

    def check_digests(self, *, part: int = 0, num_parts: int = 1) -> None:
        """Read one of num_parts of the files. ValueError or OSError if one of them is damaged."""
        check_digests(self.folder, self.manifest, part=part, num_parts=num_parts)


def open_checkpoint(folder: Path) -> Checkpoint:
    """ValueError or OSError if the manifest or the size of a file is wrong; the files are not read."""
    manifest = read_manifest(folder)
    check_sizes(folder, manifest)
    return Checkpoint(folder, manifest)


def find_newest(checkpoints: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that can be opened, and the problem of each newer one.

    OtherSchemaError if other code has written a checkpoint before one is found: a run never falls back behind it.
    """
    problems = []
    for folder in completed_checkpoints(checkpoints):
        try:
            return open_checkpoint(folder), problems
        except OtherSchemaError:
            raise
        except (OSError, ValueError) as error:
            problems.append(str(error))
    return None, problems


def find_model(path: str | Path) -> Path:
    """`path` itself if it is a Hugging Face directory, or the newest checkpoint if it is a run; else ValueError."""
    folder = Path(path)
    saved = [
        checkpoint for checkpoint in [folder, *completed_checkpoints(checkpoints_dir(folder))] if _is_model(checkpoint)
    ]
    if not saved:
        raise ValueError(
            f"{path} holds no model: it has neither config.json nor a checkpoint; "
            "name a Hugging Face directory, or the run_dir of a run that has saved"
        )
    return saved[0]


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def prune_checkpoints(checkpoints: Path, *, keep_last: int, keep_every: int) -> list[Path]:
    """Delete old checkpoints and return them. Rank 0 only.

    The newest keep_last are kept, and those at multiples of keep_every steps; keep_last=0 keeps all.
    """
    if keep_last == 0:
        return []
    old = completed_checkpoints(checkpoints)[keep_last:]
    deleted = [path for path in old if keep_every == 0 or step_of(path) % keep_every]
    for path in deleted:
        _rename(path, ".deleted")
    clean_up(checkpoints)
    return deleted


def clean_up(checkpoints: Path) -> None:
    """Delete the remains of interrupted saves and deletions. Rank 0 only."""
    for suffix in (".partial", ".deleted"):
        for path in checkpoints.glob(f"step_*{suffix}"):
            shutil.rmtree(path, ignore_errors=True)


def quarantine(folder: Path) -> Path:
    """Rename a damaged checkpoint, so that no run resumes from it, and return its new path. Rank 0 only."""
    return _rename(folder, _DAMAGED)


def quarantined_checkpoints(checkpoints: Path) -> list[Path]:
    return sorted(checkpoints.glob(f"step_*{_DAMAGED}"))


def _rename(folder: Path, suffix: str) -> Path:
    renamed = folder.with_name(folder.name + suffix)
    shutil.rmtree(renamed, ignore_errors=True)
    os.rename(folder, renamed)
    sync_folder(folder.parent)
    return renamed
