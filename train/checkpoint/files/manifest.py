"""The manifest of a checkpoint: the facts of the run, and the digests of every file beside it.

A file is described by its runs in order, [[size, xxh3-128], ...]: one if it is small and a single rank has written it.
"""

import sys
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

import xxhash
from tqdm import tqdm

from data_prep.storage.sealed_json import sealed_json, unsealed
from train.checkpoint.files.hashed_file import Run

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1  # of the manifest and the files that it describes
_BLOCK = 1 << 24


class OtherSchemaError(ValueError):
    """A whole manifest that other code has written: the checkpoint is not damaged, but cannot be read."""


def manifest_bytes(facts: dict) -> bytes:
    """A function of the facts alone, with the schema and a digest of itself."""
    return sealed_json({**facts, "schema_version": SCHEMA_VERSION}, kind="checkpoint")


def read_manifest(folder: Path) -> dict:
    """ValueError if the manifest is missing, or differs from the bytes that were written; or OtherSchemaError."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"{folder} has no {MANIFEST}: it was never completed")
    try:
        manifest = unsealed(path.read_bytes(), kind="checkpoint")
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise OtherSchemaError(
            f"{path} was written with schema_version {manifest.get('schema_version')}, but this code reads "
            f"{SCHEMA_VERSION}; use the code that wrote it, or start again in another run_dir"
        )
    return manifest


def describe_files(runs_of_ranks: Iterable[dict[str, list[Run]]]) -> dict[str, list]:
    """The files' entries in the manifest, from the runs that each rank has written of each file.

    ValueError if a byte before the last one was written by no rank, or by two.
    """
    runs: dict[str, list[Run]] = {}
    for of_rank in runs_of_ranks:
        for name, of_file in of_rank.items():
            runs.setdefault(name, []).extend(of_file)
    return {name: _describe(name, runs[name]) for name in sorted(runs)}


def _describe(name: str, runs: list[Run]) -> list[list]:
    end, entries = 0, []
    for run in sorted(runs, key=lambda run: run.begin):
        if run.begin != end:
            problem = "no rank has" if run.begin > end else "two ranks have"
            first, last = sorted((end, run.begin))
            raise ValueError(f"{problem} written the bytes {first} to {last - 1} of {name}")
        end += run.size
        entries.append([run.size, run.xxh3])
    return entries


def check_sizes(folder: Path, manifest: dict) -> None:
    """ValueError naming the first file that is missing or has the wrong size."""
    for name, runs in manifest["files"].items():
        path, written = folder / name, sum(size for size, _ in runs)
        size = path.stat().st_size if path.is_file() else None
        if size != written:
            found = "missing" if size is None else f"{size} bytes long"
            raise ValueError(f"{path} is {found}, but was written with {written} bytes")


def check_digests(folder: Path, manifest: dict, *, part: int = 0, num_parts: int = 1) -> None:
    """ValueError naming the first changed file; part p of n reads every n-th run, beginning with run p."""
    runs = [run for name in sorted(manifest["files"]) for run in _runs(name, manifest["files"][name])][part::num_parts]
    is_hidden = part > 0 or not sys.stderr.isatty()
    for name, run in tqdm(runs, desc=f"checking {folder.name}", unit="run", leave=False, disable=is_hidden):
        found = _digest(folder / name, run)
        if found != run.xxh3:
            raise ValueError(
                f"{folder / name} is damaged: its bytes {run.begin} to {run.begin + run.size - 1} have digest {found}, "
                f"but were written with {run.xxh3}"
            )


def _runs(name: str, entries: list[list]) -> list[tuple[str, Run]]:
    ends = accumulate(size for size, _ in entries)
    return [(name, Run(end - size, size, xxh3)) for end, (size, xxh3) in zip(ends, entries, strict=True)]


def _digest(path: Path, run: Run) -> str:
    digest, left = xxhash.xxh3_128(), run.size
    with open(path, "rb") as file:
        file.seek(run.begin)
        while block := file.read(min(left, _BLOCK)):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
