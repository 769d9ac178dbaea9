"""Prepare the folder that token shards are written to: empty or begun by the same plan, with its own tokenizer."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.shards.manifest import MANIFEST_NAME
from data_prep.storage.atomic_file import atomic_file
from data_prep.tokenizing.unfinished import PLAN_NAME, Plan, check_plan, forget, write_plan

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
TOKENIZER_FOLDER = "tokenizer"


@contextmanager
def locked_folder(folder: str | Path) -> Iterator[Path]:
    """Create `folder` and hold it; ValueError where another process of this host holds it. The kernel lets go of it
    when its holder dies, however that happens."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        yield folder
    finally:
        os.close(descriptor)


def prepare_folder(folder: Path, plan: Plan, *, overwrite: bool) -> bool:
    """Make `folder` one that follows `plan`; return whether it is finished already, but for cleaning up.

    ValueError where it holds something else, or with `overwrite` remove what this package wrote there.
    """
    is_begun, is_finished = ((folder / name).exists() for name in (PLAN_NAME, MANIFEST_NAME))
    if is_begun and _follows(folder, plan, or_overwrite=overwrite or is_finished):
        if is_finished:  # killed after the manifest, before the records were gone
            forget(folder, plan)
        _remove(folder, ".*.tmp")
        return is_finished
    _remove(folder, f".{PLAN_NAME}.*.tmp")  # killed before the plan had its name
    if any(folder.iterdir()):
        if not overwrite:
            raise ValueError(f"{folder} is not empty; give another --output, or --overwrite to replace its shards")
        _remove_token_shards(folder)
    write_plan(folder, plan)
    return False


def copy_tokenizer(source: str | Path, folder: Path) -> Path:
    """Copy the tokenizer's files to <folder>/tokenizer, so that later steps need no other path; return that folder."""
    target = folder / TOKENIZER_FOLDER
    target.mkdir(exist_ok=True)
    _remove(target, ".*.tmp")
    for name in TOKENIZER_FILES:
        original, copy = Path(source) / name, target / name
        if not original.is_file():
            copy.unlink(missing_ok=True)  # of an earlier tokenizer
        elif original.resolve() != copy.resolve():
            with atomic_file(copy) as file:
                file.write(original.read_bytes())
    return target


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{folder} is being written by another process; wait for its end, or end it") from None
    except OSError:
        pass  # some file systems of clusters have no locks


def _follows(folder: Path, plan: Plan, *, or_overwrite: bool) -> bool:
    try:
        check_plan(folder, plan)
    except ValueError:
        if not or_overwrite:
            raise
        return False
    return True


def _remove_token_shards(folder: Path) -> None:
    """Remove the manifest first: without it the folder counts as unfinished. Other files are left alone."""
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    for pattern in ("*.bin", "*.idx", "*.done.json", ".*.tmp", "counts.safetensors", "counts_*.safetensors", PLAN_NAME):
        _remove(folder, pattern)


def _remove(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()
