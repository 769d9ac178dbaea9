"""The stamp of verified token shards: whoever reads them later does not compare their digests again.

It trusts that a file in the same place, in the same corpus, with the same size and the same time of its last change
holds the bytes that verification read: that the disk keeps them, and that nobody sets times back. It does not hold for
a copy of the folder. It is in the folder itself or, if that is read-only, in the user's cache.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

import xxhash

from data_prep.shards.manifest import Manifest
from data_prep.storage.atomic_file import atomic_file
from data_prep.storage.sealed_json import sealed_json, unsealed

STAMP_NAME = "verified.json"
KIND, SCHEMA_VERSION = "verified_token_shards", 1
# Two changes within one tick of a file system's clock have the same time. The coarsest ticks in use are 2 s.
_TICK_NS = 2 * 10**9


def trusted_mtime_ns(path: Path) -> int | None:
    """Return the time of a file's last change, to take before it is verified; None if it is too recent."""
    changed = path.stat().st_mtime_ns
    return changed if changed < time.time_ns() - _TICK_NS else None


def write_stamp(folder: Path, manifest: Manifest, mtimes_ns: dict[str, int]) -> None:
    """Record {name of the shard: time of the last change of its .bin} of the shards that were found intact."""
    content = sealed_json(_facts(folder, manifest) | {"mtimes_ns": mtimes_ns}, kind=KIND)
    for path in _places(folder):
        with suppress(OSError):  # read-only; without any stamp, digests are compared
            with atomic_file(path) as file:
                file.write(content)
            return


def read_stamp(folder: Path, manifest: Manifest) -> dict[str, int]:
    """Return what write_stamp recorded; nothing if nobody has verified this folder with this manifest."""
    for path in _places(folder):
        with suppress(OSError, ValueError, KeyError):
            recorded = unsealed(path.read_bytes(), kind=KIND)
            mtimes_ns = recorded.pop("mtimes_ns")
            if recorded == _facts(folder, manifest):
                return mtimes_ns
    return {}


def _places(folder: Path) -> list[Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hash_layers" / "verified"
    return [folder / STAMP_NAME, cache / f"{xxhash.xxh3_128_hexdigest(os.fsencode(folder.resolve()))}.json"]


def _facts(folder: Path, manifest: Manifest) -> dict:
    facts = {"schema_version": SCHEMA_VERSION, "folder": str(folder.resolve())}
    return facts | {"vocab_size": manifest.vocab_size, "corpus_digest": manifest.corpus_digest}
