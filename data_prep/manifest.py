"""The manifest of a folder of token shards: what the tokens are, where they came from, and their digests."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from data_prep.atomic_file import atomic_file

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True)
class Shard:
    """One pair of files, <name>.bin and <name>.idx."""

    name: str
    source: str  # folder and name of the raw shard
    num_tokens: int
    num_documents: int
    xxh3: str  # 32 hex digits, xxh3-128 of <name>.bin


@dataclass(frozen=True)
class Manifest:
    """All that a reader of the token shards needs to know, and all that tells one corpus from another."""

    schema_version: int
    tokenizer_digest: str
    vocab_size: int
    end_token_id: int  # follows every document
    dtype: str  # "uint16" or "int32", little-endian
    boundary: str  # "gpt2": documents are joined by the end token alone
    corpus_digest: str  # of the shards in their order, and the tokenizer
    num_tokens: int
    num_documents: int
    shards: tuple[Shard, ...]


def make_manifest(shards: list[Shard], *, tokenizer_digest: str, vocab_size: int, end_token_id: int) -> Manifest:
    """Sum up finished shards."""
    return Manifest(
        schema_version=SCHEMA_VERSION,
        tokenizer_digest=tokenizer_digest,
        vocab_size=vocab_size,
        end_token_id=end_token_id,
        dtype=token_dtype(vocab_size),
        boundary="gpt2",
        corpus_digest=corpus_digest(shards, tokenizer_digest),
        num_tokens=sum(shard.num_tokens for shard in shards),
        num_documents=sum(shard.num_documents for shard in shards),
        shards=tuple(shards),
    )


def read_manifest(folder: str | Path) -> Manifest:
    """Read <folder>/manifest.json; FileNotFoundError without one, ValueError where it was edited."""
    path = Path(folder) / MANIFEST_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {folder} is no finished folder of token shards; tokenize it again")
    manifest = _parse(path)
    found = corpus_digest(manifest.shards, manifest.tokenizer_digest)
    if manifest.corpus_digest != found:
        raise ValueError(f"{path} says corpus_digest {manifest.corpus_digest} but its shards give {found}; restore it")
    return manifest


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Write <folder>/manifest.json atomically: from then on the folder is finished."""
    with atomic_file(Path(folder) / MANIFEST_NAME) as file:
        file.write((json.dumps(asdict(manifest), indent=2) + "\n").encode())


def token_dtype(vocab_size: int) -> str:
    """Return Megatron's choice of dtype: two bytes per token where ids fit."""
    return "uint16" if vocab_size < 65500 else "int32"


def corpus_digest(shards: list[Shard] | tuple[Shard, ...], tokenizer_digest: str) -> str:
    """Return "sha256:<64 hex>" over the tokenizer's digest and each shard's, in order."""
    lines = [tokenizer_digest, *(f"{shard.xxh3} {shard.num_tokens} {shard.num_documents}" for shard in shards)]
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _parse(path: Path) -> Manifest:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.get("schema_version")
        if version == SCHEMA_VERSION:
            shards = tuple(Shard(**_exactly(Shard, shard)) for shard in values["shards"])
            return Manifest(**_exactly(Manifest, values) | {"shards": shards})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a manifest of token shards ({error}); tokenize the folder again") from error
    raise ValueError(f"{path} has schema_version {version}, this code reads {SCHEMA_VERSION}; tokenize again")


def _exactly(kind: type, values: dict) -> dict:
    """Return `values`, or ValueError naming the fields of `kind` that are missing or unknown."""
    expected = {field.name for field in fields(kind)}
    if values.keys() != expected:
        raise ValueError(f"{kind.__name__} has the wrong fields: {sorted(expected ^ values.keys())}")
    return values
