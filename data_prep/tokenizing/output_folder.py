"""Prepare the output folder of token shards: new, unfinished with the same spec, or finished and to be extended."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_prep.documents.raw_shards import RawShard
from data_prep.shards.manifest import MANIFEST_NAME, read_manifest
from data_prep.shards.verified import STAMP_NAME
from data_prep.tokenizing.folder_plan import PlannedShard
from data_prep.tokenizing.raw_text import find_plan, refuse_new
from data_prep.tokenizing.sources import SOURCES_NAME
from data_prep.tokenizing.unfinished import (
    SPEC_NAME,
    FinishedShard,
    FolderSpec,
    check_spec,
    finished_shards,
    read_unfinished,
    recorded_plan,
    remove_records,
    spec_of,
    write_unfinished,
)

MakePlan = Callable[..., list[PlannedShard]]  # plan_shards, given all but the raw shards and the first number


@dataclass(frozen=True)
class FolderState:
    """What a folder will hold."""

    plan: list[PlannedShard]
    finished: dict[str, FinishedShard]  # token shards of its manifest, by name; training may be reading them

    @property
    def missing(self) -> list[PlannedShard]:
        return [planned for planned in self.plan if planned.name not in self.finished]


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


def prepare_folder(
    folder: Path, spec: FolderSpec, raw_shards: list[RawShard], make_plan: MakePlan, *, extend: bool, overwrite: bool
) -> FolderState:
    """Write spec and plan to `folder`, unless they are there already or the folder is finished; return its state.

    ValueError if the folder holds anything else, or token shards of another spec or text; with `overwrite`, remove the
    token shards there instead. With `extend`, raw shards that are new become new token shards.
    """
    is_begun, is_finished = ((folder / name).exists() for name in (SPEC_NAME, MANIFEST_NAME))
    if is_begun or (is_finished and not overwrite):
        try:
            state = _continue(folder, spec, raw_shards, make_plan, extend=extend)
            if not overwrite or len(state.finished) in (0, len(state.plan)):
                return state  # otherwise, an unfinished extension, which is overwritten too
        except ValueError:
            if not overwrite:
                raise
    _remove(folder, f".{SPEC_NAME}.*.tmp")  # killed before the spec was renamed
    if any(folder.iterdir()):
        if not overwrite:
            raise ValueError(f"{folder} is not empty; give another --output, or --overwrite to replace its shards")
        _remove_token_shards(folder)
    plan = make_plan(raw_shards)
    write_unfinished(folder, spec, plan)
    return FolderState(plan, {})


def _continue(
    folder: Path, spec: FolderSpec, raw_shards: list[RawShard], make_plan: MakePlan, *, extend: bool
) -> FolderState:
    is_begun, is_finished = ((folder / name).exists() for name in (SPEC_NAME, MANIFEST_NAME))
    finished = {}
    if is_finished:
        manifest = read_manifest(folder)
        check_spec(folder, spec_of(manifest).to_json(), spec, state="finished")
        finished = finished_shards(folder, manifest)
    recorded = read_unfinished(folder, spec) if is_begun else recorded_plan(finished)
    plan, new = find_plan(folder, recorded, finished, raw_shards, spec.rules)
    if new and not extend:
        refuse_new(folder, new)
    if new:
        plan += make_plan(new, first_number=len(plan))
        write_unfinished(folder, spec, plan)
    elif is_begun and len(finished) == len(plan):  # killed after the manifest was written, before this
        remove_records(folder, [each.name for each in plan])
    _remove(folder, ".*.tmp")
    return FolderState(plan, finished)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{folder} is being written by another process; wait for it, or stop it") from None
    except OSError:
        pass  # some cluster file systems have no locks


def _remove_token_shards(folder: Path) -> None:
    """Remove the manifest first: without it, the folder counts as unfinished. Other files stay."""
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    tokens = ("*.bin", "*.idx", "*.sum", STAMP_NAME, "*.done.json", ".*.tmp", SOURCES_NAME)
    for pattern in (*tokens, "counts.safetensors", "counts_*.safetensors", SPEC_NAME):
        _remove(folder, pattern)


def _remove(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()
