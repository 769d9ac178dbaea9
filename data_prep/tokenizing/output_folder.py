"""Prepare the output folder of token shards: empty or left unfinished with the same spec."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.shards.manifest import MANIFEST_NAME
from data_prep.shards.verified import STAMP_NAME
from data_prep.tokenizing.sources import SOURCES_NAME
from data_prep.tokenizing.unfinished import SPEC_NAME, FolderSpec, check_spec, remove_records, write_spec


@contextmanager
def locked_folder(folder: str | Path) -> Iterator[Path]:
    """Create `folder` and lock it; ValueError if another process of this host holds the lock.

    The kernel releases the lock when the process that holds it dies, however that happens.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        yield folder
    finally:
        os.close(descriptor)


def prepare_folder(folder: Path, spec: FolderSpec, *, overwrite: bool) -> bool:
    """Write `spec` to `folder` unless it is there already; return whether the folder is finished.

    ValueError if the folder holds anything else; with `overwrite`, remove the token shards there instead.
    """
    is_begun, is_finished = ((folder / name).exists() for name in (SPEC_NAME, MANIFEST_NAME))
    if is_begun and _follows(folder, spec, or_overwrite=overwrite or is_finished):
        if is_finished:  # killed after the manifest was written, before the records were removed
            remove_records(folder, spec)
        _remove(folder, ".*.tmp")
        return is_finished
    _remove(folder, f".{SPEC_NAME}.*.tmp")  # killed before the spec was renamed
    if any(folder.iterdir()):
        if not overwrite:
            raise ValueError(f"{folder} is not empty; give another --output, or --overwrite to replace its shards")
        _remove_token_shards(folder)
    write_spec(folder, spec)
    return False


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{folder} is being written by another process; wait for it, or stop it") from None
    except OSError:
        pass  # some cluster file systems have no locks


def _follows(folder: Path, spec: FolderSpec, *, or_overwrite: bool) -> bool:
    try:
        check_spec(folder, spec)
    except ValueError:
        if not or_overwrite:
            raise
        return False
    return True


def _remove_token_shards(folder: Path) -> None:
    """Remove the manifest first: without it, the folder counts as unfinished. Other files stay."""
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    tokens = ("*.bin", "*.idx", "*.sum", STAMP_NAME, "*.done.json", ".*.tmp", SOURCES_NAME)
    for pattern in (*tokens, "counts.safetensors", "counts_*.safetensors", SPEC_NAME):
        _remove(folder, pattern)


def _remove(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()
