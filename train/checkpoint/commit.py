"""Commit: a checkpoint exists if and only if all its files are on disk, under a manifest of their digests.

Every rank writes into step_N.partial and flushes; sizes and digests are gathered; rank 0 writes the manifest, flushes,
renames the folder and flushes its parent. If a run is killed at any moment, step_N is either absent or complete.
"""

import os
import shutil
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from data_prep.storage.atomic_file import flush_to_disk, sync_folder
from train.checkpoint.export import ModelExport
from train.checkpoint.files.manifest import MANIFEST, describe_file, manifest_bytes
from train.checkpoint.files.stored_state import STATE_DIR, StateShard, StoredState, write_shards
from train.processes.agreement import Group


class CheckpointError(Exception):
    """A checkpoint could not be written; the earlier ones are unchanged."""


@dataclass(frozen=True)
class Snapshot:
    """One rank's part of a checkpoint that is yet to be written."""

    folder: Path  # the final name
    shards: list[StateShard]  # the part of the training state that this rank saves
    facts: dict  # about the run, for the manifest
    export: ModelExport | None = None  # the model for transformers; rank 0 writes it from the shards of all ranks

    def write_state(self, partial: Path, *, rank: int) -> list[str]:
        """Write this rank's shards below the folder `partial`; returns the relative names of the files."""
        name = f"{STATE_DIR}/rank_{rank:05d}.safetensors"
        (partial / STATE_DIR).mkdir(exist_ok=True)
        write_shards(partial / name, self.shards)
        return [name]

    def write_model(self, partial: Path) -> list[str]:
        """Write the model from the shards of all ranks, which lie below `partial`. Rank 0 only."""
        if self.export is None:
            return []
        return self.export.write(partial, StoredState(sorted((partial / STATE_DIR).glob("*.safetensors"))))


def commit(snapshot: Snapshot, group: Group) -> None:
    """Write a checkpoint and give it its final name. Collective over the group: every rank must call it.

    CheckpointError on all ranks if one of them fails; no partial folder is left then.
    """
    partial, is_first = snapshot.folder.with_name(snapshot.folder.name + ".partial"), group.rank == 0
    _agree(group, partial, lambda: _make_empty(partial) if is_first else None)
    descriptions = _agree(group, partial, lambda: _flush(partial, snapshot.write_state(partial, rank=group.rank)))
    descriptions += _agree(group, partial, lambda: _flush(partial, snapshot.write_model(partial) if is_first else []))
    files = {name: description for of_rank in descriptions for name, description in of_rank.items()}
    facts = {**snapshot.facts, "files": files}
    _agree(group, partial, lambda: _publish(partial, snapshot.folder, facts) if is_first else None)


def _agree(group: Group, partial: Path, act: Callable[[], object]) -> list:
    """The result of act() on every rank. If one rank fails: CheckpointError on all ranks, and no partial folder."""
    try:
        result, error = act(), None
    except Exception as failure:  # of any kind: the other ranks wait for this rank's outcome
        is_disk_error = isinstance(failure, OSError)
        result, error = None, f"{type(failure).__name__}: {failure}" if is_disk_error else traceback.format_exc()
    outcomes = group.gather((result, error))
    errors = [f"rank {rank}: {error}" for rank, (_, error) in enumerate(outcomes) if error]
    if errors:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(f"{partial} could not be written ({'; '.join(errors)})")
    return [result for result, _ in outcomes]


def _make_empty(partial: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)


def _flush(partial: Path, names: Iterable[str]) -> dict[str, dict]:
    """Flush files to disk and return their entries in the manifest."""
    for name in names:
        with open(partial / name, "rb") as file:
            os.fsync(file.fileno())
    return {name: describe_file(partial / name) for name in names}


def _publish(partial: Path, folder: Path, facts: dict) -> None:
    with open(partial / MANIFEST, "wb") as file:
        file.write(manifest_bytes(facts))
        flush_to_disk(file)
    for name in {Path(name).parent for name in facts["files"]} | {Path(".")}:
        sync_folder(partial / name)
    os.rename(partial, folder)
    sync_folder(folder.parent)
