"""The stamp of verified token shards: whoever reads them later does not compare their digests again.

It trusts that the same file in the same place and corpus, that is, of the same size, inode number and times of its
last changes, holds the bytes that verification read: that the disk keeps them. A copy, of the folder or of one file, is
another file on any disk of any host, whatever keeps or sets its times; only an image of a whole disk passes for that
disk. The stamp is in the folder itself or, if that is read-only, in the user's cache.
"""

import os
from contextlib import suppress
from pathlib import Path
from time import time_ns
from typing import NamedTuple

import xxhash

from data_prep.shards.manifest import Manifest
from data_prep.storage.atomic_file import atomic_file
from data_prep.storage.sealed_json import sealed_json, unsealed

STAMP_NAME = "verified.json"
KIND, SCHEMA_VERSION = "verified_token_shards", 2
# Two changes within one tick of a file system's clock have the same time. The coarsest ticks in use are 2 s.
_TICK_NS = 2 * 10**9


class FileState(NamedTuple):
    """What a file system says of one content of one file; every host that shares the file is told the same.

    The number of its device is left out: hosts of a shared disk, and even one that starts again, number it differently.
    """

    mtime_ns: int  # any program may set it, and those that copy files do
    ctime_ns: int  # only the system sets it, at every change of content, name, owner or rights
    inode: int


def state_of(status: os.stat_result) -> FileState:
    return FileState(status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def trusted_state(path: Path) -> FileState | None:
    """Return the state of a file, to take before it is verified; None if it changed too recently to be trusted."""
    state = state_of(path.stat())
    return state if max(state.mtime_ns, state.ctime_ns) < time_ns() - _TICK_NS else None


def write_stamp(folder: Path, manifest: Manifest, states: dict[str, FileState]) -> None:
    """Record {name of the shard: state of its .bin} of the shards that were found intact."""
    content = sealed_json(_facts(folder, manifest) | {"states": states}, kind=KIND)
    for path in _places(folder):
        with suppress(OSError):  # read-only; without any stamp, digests are compared
            with atomic_file(path) as file:
                file.write(content)
            return


def read_stamp(folder: Path, manifest: Manifest) -> dict[str, FileState]:
    """Return what write_stamp recorded; nothing if nobody has verified this folder with this manifest."""
    for path in _places(folder):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            recorded = unsealed(path.read_bytes(), kind=KIND)
            states = recorded.pop("states")
            if recorded == _facts(folder, manifest):
                return {name: FileState(*state) for name, state in states.items()}
    return {}


def _places(folder: Path) -> list[Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hash_layers" / "verified"
    return [folder / STAMP_NAME, cache / f"{xxhash.xxh3_128_hexdigest(os.fsencode(folder.resolve()))}.json"]


def _facts(folder: Path, manifest: Manifest) -> dict:
    facts = {"schema_version": SCHEMA_VERSION, "folder": str(folder.resolve())}
    return facts | {"vocab_size": manifest.vocab_size, "corpus_digest": manifest.corpus_digest}
