"""Prepare the folder that token shards are written to: empty, with its own copy of the tokenizer."""

import shutil
from pathlib import Path

from data_prep.manifest import MANIFEST_NAME

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
TOKENIZER_FOLDER = "tokenizer"


def prepare_folder(folder: str | Path, *, overwrite: bool) -> Path:
    """Create `folder`; if it holds something, ValueError, or with `overwrite` remove what this package wrote there."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        if not overwrite:
            raise ValueError(f"{folder} is not empty; give another --output, or --overwrite to replace its shards")
        _remove_token_shards(folder)
    return folder


def copy_tokenizer(source: str | Path, folder: Path) -> Path:
    """Copy the tokenizer's files to <folder>/tokenizer, so that later steps need no other path; return that folder."""
    target = folder / TOKENIZER_FOLDER
    target.mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        original, copy = Path(source) / name, target / name
        if not original.is_file():
            copy.unlink(missing_ok=True)  # of an earlier tokenizer
        elif original.resolve() != copy.resolve():
            shutil.copyfile(original, copy)
    return target


def _remove_token_shards(folder: Path) -> None:
    """Remove the manifest first: without it the folder counts as unfinished. Other files are left alone."""
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    for pattern in ("*.bin", "*.idx", ".*.tmp", "counts.safetensors", "counts_*.safetensors"):
        for path in folder.glob(pattern):
            path.unlink()
