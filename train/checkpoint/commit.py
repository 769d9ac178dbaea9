"""Commit: a checkpoint exists when, and only when, all its files are on the disk under a manifest of their digests.

Every rank writes into step_N.partial and flushes; sizes and digests are gathered; rank 0 writes the manifest, flushes,
renames the folder and flushes its parent. Whatever moment a run is killed at, step_N is absent or complete.
"""

import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

import xxhash
from tqdm import tqdm

from data_prep.storage.atomic_file import flush_to_disk, sync_folder
from data_prep.storage.sealed_json import sealed_json, unsealed

MANIFEST = "manifest.json"
_BLOCK = 1 << 24


class CheckpointError(Exception):
    """A checkpoint could not be written; the ones before it are as they were."""


Writer = Callable[[Path], Iterable[str]]


def commit_checkpoint(
    folder: Path,
    write: Writer,
    facts: dict,
    *,
    rank: int,
    gather: Callable[[object], list],
    write_once: Writer = lambda _: (),
) -> None:
    """Write a checkpoint and give it its name. Collective over all ranks.

    write(partial): writes this rank's files below the folder `partial` and returns their relative names, and
    write_once(partial), on rank 0, what is made of all of them. facts: of the run, into the manifest. gather(value):
    the values of all ranks. CheckpointError on all ranks where one of them failed.
    """
    partial = folder.with_name(folder.name + ".partial")
    _agree(gather, lambda: _make_empty(partial) if rank == 0 else None, partial)
    described = _agree(gather, lambda: _write_and_describe(partial, write), partial)
    described += _agree(gather, lambda: _write_and_describe(partial, write_once) if rank == 0 else {}, partial)
    files = {name: description for descriptions in described for name, description in descriptions.items()}
    _agree(gather, lambda: _publish(partial, folder, {**facts, "files": files}) if rank == 0 else None, partial)


def _agree(gather: Callable[[object], list], act: Callable[[], object], partial: Path) -> list:
    """What act() returned on every rank; CheckpointError on all of them, and no partial folder, where one failed."""
    try:
        result, error = act(), None
    except Exception as failure:  # whatever it is, the other ranks wait for this one's word
        is_of_the_disk = isinstance(failure, OSError)
        result, error = None, f"{type(failure).__name__}: {failure}" if is_of_the_disk else traceback.format_exc()
    outcomes = gather((result, error))
    errors = [f"rank {rank}: {error}" for rank, (_, error) in enumerate(outcomes) if error]
    if errors:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(f"{partial} could not be written ({'; '.join(errors)})")
    return [result for result, _ in outcomes]


def _make_empty(partial: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)


def _write_and_describe(partial: Path, write: Callable[[Path], Iterable[str]]) -> dict[str, dict]:
    names = list(write(partial))
    for name in names:
        with open(partial / name, "rb") as file:
            os.fsync(file.fileno())
    return {name: _describe(partial / name) for name in names}


def _publish(partial: Path, folder: Path, facts: dict) -> None:
    with open(partial / MANIFEST, "wb") as file:
        file.write(manifest_bytes(facts))
        flush_to_disk(file)
    for name in {Path(name).parent for name in facts["files"]} | {Path(".")}:
        sync_folder(partial / name)
    os.rename(partial, folder)
    sync_folder(folder.parent)


def manifest_bytes(facts: dict) -> bytes:
    """The manifest's bytes, which are a function of its content and its content's digest."""
    return sealed_json(facts, kind="checkpoint")


def read_manifest(folder: Path) -> dict:
    """ValueError where the manifest is missing, or not the bytes that were written."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"{folder} has no {MANIFEST}: it was never completed")
    try:
        return unsealed(path.read_bytes(), kind="checkpoint")
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def check_sizes(folder: Path, manifest: dict) -> None:
    """ValueError naming the first file that is missing or not as long as it was."""
    for name, description in manifest["files"].items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != description["size"]:
            found = "missing" if size is None else f"{size} bytes long"
            raise ValueError(f"{path} is {found}, but was written with {description['size']} bytes")


def check_digests(folder: Path, manifest: dict, *, part: int = 0, num_parts: int = 1) -> None:
    """ValueError naming the first changed file; of num_parts that share the work, this one reads every num_parts-th."""
    names = sorted(manifest["files"])[part::num_parts]
    hidden = part > 0 or not sys.stderr.isatty()
    for name in tqdm(names, desc=f"checking {folder.name}", unit="file", leave=False, disable=hidden):
        found, written = _describe(folder / name)["xxh3"], manifest["files"][name]["xxh3"]
        if found != written:
            raise ValueError(f"{folder / name} has digest {found}, but was written with {written}: it is damaged")


def _describe(path: Path) -> dict:
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return {"size": path.stat().st_size, "xxh3": digest.hexdigest()}


def completed_checkpoints(checkpoints: Path) -> list[Path]:
    """The folders that were given their final names, newest first; none of them is known to be sound."""
    return sorted((path for path in checkpoints.glob("step_*") if path.suffix == "" and path.is_dir()), reverse=True)


def prune_checkpoints(checkpoints: Path, *, keep_last: int, keep_every: int) -> list[Path]:
    """Delete all but the last keep_last checkpoints and those of every keep_every-th step; 0 keeps all. Rank 0 only."""
    if keep_last == 0:
        return []
    old = completed_checkpoints(checkpoints)[keep_last:]
    deleted = [path for path in old if keep_every == 0 or step_of(path) % keep_every]
    for path in deleted:
        quarantine(path, ".deleted")
    clean_up(checkpoints)
    return deleted


def clean_up(checkpoints: Path) -> None:
    """Delete what saves and deletions that were interrupted have left. Rank 0 only."""
    for suffix in (".partial", ".deleted"):
        for path in checkpoints.glob(f"step_*{suffix}"):
            shutil.rmtree(path, ignore_errors=True)


def quarantine(folder: Path, suffix: str) -> Path:
    """Rename a checkpoint, so that nothing takes it for one; returns its new name. Rank 0 only."""
    aside = folder.with_name(folder.name + suffix)
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(folder, aside)
    sync_folder(folder.parent)
    return aside


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))
