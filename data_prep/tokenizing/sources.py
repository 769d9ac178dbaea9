"""sources.jsonl: what each token shard was made of, with the digest of the raw text and all that was left out of it.

Training never opens it. The manifest holds its digest, so that it is as sound as the tokens.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash

from data_prep.documents.raw_shards import RawShard
from data_prep.shards.manifest import Manifest
from data_prep.storage.atomic_file import atomic_file

SOURCES_NAME = "sources.jsonl"
_PLACES = ("path", "dataset")  # entries of an identity that change when the raw shard moves


@dataclass(frozen=True)
class Source:
    """What one token shard holds of one raw shard."""

    shard: str  # name of the token shard
    source: str  # folder and name of the raw shard, which stay if it moves; or the data set
    identity: dict  # size and time of a file, with the byte range if it was cut; fingerprint of a data set
    xxh3: str  # 32 hex digits, xxh3-128 of the raw bytes as they were read
    num_documents: int
    num_empty: int  # documents without text, which were left out
    num_tokens: int
    num_unknown: int  # tokens that stand for text that the tokenizer cannot spell
    skipped: tuple[str, ...]  # unreadable records: the place and the problem of each


def write_sources(folder: Path, sources: Iterable[Source]) -> str:
    """Write <folder>/sources.jsonl and return its digest for the manifest."""
    content = b"".join(json.dumps(asdict(source), sort_keys=True).encode() + b"\n" for source in sources)
    with atomic_file(folder / SOURCES_NAME) as file:
        file.write(content)
    return _digest(content)


def read_sources(folder: Path, manifest: Manifest) -> list[Source]:
    """Return the sources of a finished folder, none for predictions; ValueError if the file has changed."""
    if not manifest.sources_xxh3:
        return []
    path = folder / SOURCES_NAME
    content = path.read_bytes()
    if _digest(content) != manifest.sources_xxh3:
        raise ValueError(
            f"{path} is damaged: it has digest {_digest(content)} but was written with {manifest.sources_xxh3}; "
            "copy it again or tokenize again"
        )
    return [source_from_json(json.loads(line)) for line in content.splitlines()]


def identity_of(raw_shard: RawShard) -> dict:
    """Return what distinguishes a raw shard from itself after a change, wherever it lies."""
    return {name: value for name, value in raw_shard.identity().items() if name not in _PLACES}


def source_from_json(values: dict) -> Source:
    """Return the Source of which asdict() made `values`; TypeError if fields are missing or unknown."""
    return Source(**values | {"skipped": tuple(values["skipped"])})


def _digest(content: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(content)
