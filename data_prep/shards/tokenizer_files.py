"""The tokenizer's files that travel with token shards and checkpoints: known names, plain files, no code to run.

Folders of token shards are exchanged between strangers, and a checkpoint opens with trust_remote_code. So a file that
is not one of TOKENIZER_FILES never leaves a folder, and neither does the content of a file elsewhere on disk.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import xxhash

from data_prep.storage.atomic_file import atomic_file

TOKENIZER_FOLDER = "tokenizer"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
_CONFIG = "tokenizer_config.json"
_MAX_BYTES = 2**28  # 256 MiB; the largest vocabularies in use take about 35 MB


@dataclass(frozen=True)
class TokenizerFile:
    """A file of <folder>/tokenizer as it was written; ValueError for a name that is not in TOKENIZER_FILES."""

    name: str
    size: int
    xxh3: str  # 32 hex digits, xxh3-128

    def __post_init__(self):
        if self.name not in TOKENIZER_FILES:
            raise ValueError(f"{self.name!r} is not one of a tokenizer's files, {', '.join(TOKENIZER_FILES)}")


def read_tokenizer_files(folder: str | Path) -> dict[str, bytes]:
    """Return the content of each of TOKENIZER_FILES in `folder`, by name; other files are ignored.

    tokenizer_config.json loses auto_map, by which transformers would import code. ValueError for a file that is a link
    to another place, not a plain file, too large, or not JSON.
    """
    present = [name for name in TOKENIZER_FILES if (Path(folder) / name).is_symlink() or (Path(folder) / name).exists()]
    contents = {name: _read(Path(folder) / name) for name in present}
    if _CONFIG in contents:
        contents[_CONFIG] = _without_code(contents[_CONFIG], Path(folder) / _CONFIG)
    return contents


def copy_tokenizer(source: str | Path, folder: Path) -> tuple[TokenizerFile, ...]:
    """Copy the tokenizer's files to <folder>/tokenizer, where later steps find them, and describe them.

    ValueError if that folder holds a file that is not a tokenizer's.
    """
    contents, target = read_tokenizer_files(source), folder / TOKENIZER_FOLDER
    target.mkdir(exist_ok=True)
    for leftover in target.glob(".*.tmp"):  # from a process that was killed
        leftover.unlink()
    check_names(target, TOKENIZER_FILES)
    for name in TOKENIZER_FILES:
        if name not in contents:
            (target / name).unlink(missing_ok=True)  # from an earlier tokenizer
            continue
        with atomic_file(target / name) as file:
            file.write(contents[name])
    return tuple(TokenizerFile(name, len(content), _digest(content)) for name, content in contents.items())


def check_tokenizer_files(folder: Path, written: Iterable[TokenizerFile]) -> None:
    """ValueError if <folder>/tokenizer holds anything but the files `written`, byte for byte."""
    target, by_name = folder / TOKENIZER_FOLDER, {file.name: file for file in written}
    check_names(target, by_name)
    for name, file in by_name.items():
        path = target / name
        if path.is_symlink() or not path.is_file():
            raise ValueError(f"{path} is {'a link' if path.is_symlink() else 'missing'}, but was written as a file")
        found = TokenizerFile(name, path.stat().st_size, _digest(path.read_bytes()))
        if found != file:
            raise ValueError(
                f"{path} has {found.size} bytes and digest {found.xxh3}, but was written with {file.size} and "
                f"{file.xxh3}; copy it again"
            )


def check_names(target: Path, names: Iterable[str]) -> None:
    """ValueError for the first file in the folder `target` that is not one of `names`."""
    known = set(names)
    unknown = sorted(path.name for path in target.iterdir() if path.name not in known) if target.is_dir() else []
    if unknown:
        raise ValueError(
            f"{target / unknown[0]} is not one of the tokenizer's files ({', '.join(sorted(known)) or 'none'}); "
            "it would travel with every checkpoint, so remove it"
        )


def _read(path: Path) -> bytes:
    _check_place(path)
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, but a tokenizer's file has at most {_MAX_BYTES:,}")
    return path.read_bytes()


def _check_place(path: Path) -> None:
    """ValueError unless the file lies in its own folder, or in the Hugging Face cache of its own repository."""
    real, home = path.resolve(), path.parent.resolve()
    places = [home]
    if home.parent.name == "snapshots":  # models--X/snapshots/REVISION holds links into models--X/blobs
        places.append(home.parent.parent / "blobs")
    if not any(real.is_relative_to(place) for place in places):
        raise ValueError(f"{path} is a link to {real}, outside its folder; put the file itself there")
    if not real.is_file():
        raise ValueError(f"{path} is not a plain file; give a tokenizer's folder")


def _without_code(content: bytes, path: Path) -> bytes:
    try:
        settings = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds {type(settings).__name__}, not a JSON object")
    kept = {name: value for name, value in settings.items() if not name.endswith("_map")}
    return content if kept == settings else json.dumps(kept, indent=2, ensure_ascii=False).encode() + b"\n"


def _digest(content: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(content)
