"""sources.jsonl: what each token shard was made of, with the digest of the raw text and all that was left out of it.

Training never opens it. The manifest holds its digest, so that it is as sound as the tokens. A folder that is extended
only appends to it: the manifest before the extension still describes its beginning.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.files.read_blocks import read_blocks
from data_prep.documents.raw_shards import RawFile, RawShard
from data_prep.documents.skipped import SkippedRecords
from data_prep.shards.manifest import Manifest, SourcesFile
from data_prep.storage.atomic_file import atomic_file

SOURCES_NAME = "sources.jsonl"
_PLACES = ("path", "dataset")  # entries of an identity that change when the raw shard moves


@dataclass(frozen=True)
class RawPart:
    """What distinguishes a raw shard, or a byte range of one, from any other and from itself after a change."""

    source: str  # folder and name of the raw shard, which stay if it moves; or the data set
    identity: dict  # size and time of a file, with the byte range if it was cut; fingerprint of a data set

    def __post_init__(self):
        if not isinstance(self.source, str) or not isinstance(self.identity, dict):
            raise ValueError(f"source={self.source!r} and identity={self.identity!r} do not name a raw shard")


@dataclass(frozen=True)
class Source:
    """What one token shard holds of one raw shard."""

    shard: str  # name of the token shard
    part: RawPart
    xxh3: str  # 32 hex digits, xxh3-128 of the raw bytes as they were read
    num_documents: int
    num_empty: int  # documents without text, which were left out
    num_tokens: int
    num_unknown: int  # tokens that stand for text that the tokenizer cannot spell
    skipped: tuple[str, ...]  # unreadable records: the place and the problem of each


def part_of(raw_shard: RawShard) -> RawPart:
    """Return the raw shard's name and identity as they are now."""
    identity = {name: value for name, value in raw_shard.identity().items() if name not in _PLACES}
    return RawPart(raw_shard.source, identity)


def in_words(identity: dict) -> str:
    return ", ".join(f"{name} {identity[name]}" for name in sorted(identity, reverse=True))


def write_sources(folder: Path, sources: Iterable[Source]) -> SourcesFile:
    """Write <folder>/sources.jsonl and return its description for the manifest."""
    content = b"".join(json.dumps(asdict(source), sort_keys=True).encode() + b"\n" for source in sources)
    with atomic_file(folder / SOURCES_NAME) as file:
        file.write(content)
    return _describe(content)


def read_sources(folder: Path, manifest: Manifest) -> list[Source]:
    """Return the sources of a finished folder, none for predictions; ValueError if the file has changed."""
    if manifest.sources is None:
        return []
    path = folder / SOURCES_NAME
    with open(path, "rb") as file:
        content = file.read(manifest.sources.num_bytes)
    found = _describe(content)
    if found != manifest.sources:
        raise ValueError(
            f"{path} is damaged: it has {found.num_bytes} bytes and digest {found.xxh3}, but was written with "
            f"{manifest.sources.num_bytes} and {manifest.sources.xxh3}; copy it again or tokenize again"
        )
    return [source_from_json(json.loads(line)) for line in content.splitlines()]


def source_from_json(values: dict) -> Source:
    """Return the Source of which asdict() made `values`; TypeError if fields are missing or unknown."""
    return Source(**values | {"part": RawPart(**values["part"]), "skipped": tuple(values["skipped"])})


def raw_digest(raw_shard: RawShard, rules: DocumentRules, on_read: Callable[[int], object]) -> str:
    """Return the digest that tokenizing a raw shard records: the xxh3-128 of its bytes, 32 hex digits."""
    digest = xxhash.xxh3_128()
    if isinstance(raw_shard, RawFile) and raw_shard.end is None:
        parts = read_blocks(raw_shard.path, on_read, digest=digest)
    else:
        parts = raw_shard.read_parts(rules, SkippedRecords(raw_shard.label, 2**63), on_read, digest=digest)
    for _ in parts:
        pass
    return digest.hexdigest()


def _describe(content: bytes) -> SourcesFile:
    return SourcesFile(len(content), xxhash.xxh3_128_hexdigest(content))
