"""Commit: a checkpoint exists if and only if all its files are on disk, under a manifest of their digests.

Every rank writes its part into step_N.partial, hashing it on the way, and flushes; the digests are gathered; rank 0
writes the manifest, flushes, renames the folder and flushes its parent. If a run is killed at any moment, step_N is
either absent or complete.
"""

import os
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_prep.storage.atomic_file import flush_to_disk, sync_folder
from train.checkpoint.export import ModelExport
from train.checkpoint.files.hashed_file import Run
from train.checkpoint.files.manifest import MANIFEST, check_sizes, describe_files, manifest_bytes
from train.checkpoint.files.stored_state import STATE_DIR, StateShard, write_shards
from train.processes.agreement import Group


class CheckpointError(Exception):
    """A checkpoint could not be written; the earlier ones are unchanged."""


@dataclass(frozen=True)
class Snapshot:
    """One rank's part of a checkpoint that is yet to be written."""

    folder: Path  # the final name
    shards: list[StateShard]  # the part of the training state that this rank saves
    facts: dict  # about the run, for the manifest
    export: ModelExport | None = None  # the model for transformers

    def create(self, partial: Path) -> None:
        """Make the folder `partial`, and in it the files that several ranks write. Rank 0 only, before write()."""
        shutil.rmtree(partial, ignore_errors=True)
        (partial / STATE_DIR).mkdir(parents=True)
        if self.export:
            self.export.create(partial)

    def write(self, partial: Path, *, rank: int) -> dict[str, list[Run]]:
        """Write this rank's part below the folder `partial`; returns the runs of each file, all of them on disk."""
        name = f"{STATE_DIR}/rank_{rank:05d}.safetensors"
        runs = {name: write_shards(partial / name, self.shards)}
        return runs | (self.export.write(partial, self.shards, rank=rank) if self.export else {})


def commit(snapshot: Snapshot, group: Group) -> None:
    """Write a checkpoint and give it its final name. Collective over the group: every rank must call it.

    CheckpointError on all ranks if one of them fails; no partial folder is left then.
    """
    partial, is_first = snapshot.folder.with_name(snapshot.folder.name + ".partial"), group.rank == 0
    _agree(group, partial, lambda: snapshot.create(partial) if is_first else None)
    runs = _agree(group, partial, lambda: snapshot.write(partial, rank=group.rank))
    _agree(group, partial, lambda: _publish(partial, snapshot, runs) if is_first else None)


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


def _publish(partial: Path, snapshot: Snapshot, runs: list[dict[str, list[Run]]]) -> None:
    """runs: what each rank has written."""
    facts = {**snapshot.facts, "files": describe_files(runs)}
    check_sizes(partial, facts)
    with open(partial / MANIFEST, "wb") as file:
        file.write(manifest_bytes(facts))
        flush_to_disk(file)
    for name in {Path(name).parent for name in facts["files"]} | {Path(".")}:
        sync_folder(partial / name)
    os.rename(partial, snapshot.folder)
    sync_folder(snapshot.folder.parent)
