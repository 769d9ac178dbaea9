"""The manifest of a checkpoint: the facts of the run, and size and digest of every file beside it."""

import sys
from pathlib import Path

import xxhash
from tqdm import tqdm

from data_prep.storage.sealed_json import sealed_json, unsealed

MANIFEST = "manifest.json"
_BLOCK = 1 << 24


def manifest_bytes(facts: dict) -> bytes:
    """A function of the facts alone, with a digest of itself."""
    return sealed_json(facts, kind="checkpoint")


def read_manifest(folder: Path) -> dict:
    """ValueError if the manifest is missing, or differs from the bytes that were written."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"{folder} has no {MANIFEST}: it was never completed")
    try:
        return unsealed(path.read_bytes(), kind="checkpoint")
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def describe_file(path: Path) -> dict:
    """A file's entry in the manifest."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return {"size": path.stat().st_size, "xxh3": digest.hexdigest()}


def check_sizes(folder: Path, manifest: dict) -> None:
    """ValueError naming the first file that is missing or has the wrong size."""
    for name, description in manifest["files"].items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != description["size"]:
            found = "missing" if size is None else f"{size} bytes long"
            raise ValueError(f"{path} is {found}, but was written with {description['size']} bytes")


def check_digests(folder: Path, manifest: dict, *, part: int = 0, num_parts: int = 1) -> None:
    """ValueError naming the first changed file; part p of n reads every n-th file, beginning with file p."""
    names = sorted(manifest["files"])[part::num_parts]
    is_hidden = part > 0 or not sys.stderr.isatty()
    for name in tqdm(names, desc=f"checking {folder.name}", unit="file", leave=False, disable=is_hidden):
        found, written = describe_file(folder / name)["xxh3"], manifest["files"][name]["xxh3"]
        if found != written:
            raise ValueError(f"{folder / name} is damaged: it has digest {found}, but was written with {written}")
