"""The manifest of a folder of token shards: what the tokens are, where they came from, and their digests."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from data_prep.documents.document_rules import DocumentRules
from data_prep.storage.atomic_file import atomic_file
from data_prep.storage.sealed_json import sealed_json, unsealed

# 2 had no skipped, of the rules the end_token_rule alone, and is still read; 1 had no digest of itself and is refused.
SCHEMA_VERSION = 3
KIND = "token_shards"
MANIFEST_NAME = "manifest.json"
MAKE_AGAIN = "run data_prep.tokenize_shards again (predictions: launch/predict.py)"


@dataclass(frozen=True)
class Shard:
    """One pair of files, <name>.bin and <name>.idx."""

    name: str
    source: str  # folder and name of the raw shard, or the data set
    num_tokens: int
    num_documents: int
    block_bytes: int  # length of the blocks of <name>.bin; the last one may be shorter
    block_xxh3: tuple[str, ...]  # 16 hex digits per block, its xxh3-64
    index_xxh3: str  # 16 hex digits, xxh3-64 of <name>.idx
    skipped: tuple[str, ...] = ()  # records of the raw shard that could not be read: where they stood, what was wrong


@dataclass(frozen=True)
class Manifest:
    """All that a reader of the token shards needs to know, and all that tells one corpus from another."""

    schema_version: int
    tokenizer_digest: str
    vocab_size: int
    end_token_id: int  # follows every document
    dtype: str  # "uint16" or "int32", little-endian
    rules: DocumentRules  # what documents were, and where end tokens stand
    corpus_digest: str  # of the shards in their order, and the tokenizer
    num_tokens: int
    num_documents: int
    shards: tuple[Shard, ...]


def make_manifest(
    shards: list[Shard],
    *,
    tokenizer_digest: str,
    vocab_size: int,
    end_token_id: int,
    rules: DocumentRules = DocumentRules(),
) -> Manifest:
    """Sum up finished shards."""
    return Manifest(
        schema_version=SCHEMA_VERSION,
        tokenizer_digest=tokenizer_digest,
        vocab_size=vocab_size,
        end_token_id=end_token_id,
        dtype=token_dtype(vocab_size),
        rules=rules,
        corpus_digest=corpus_digest(shards, tokenizer_digest),
        num_tokens=sum(shard.num_tokens for shard in shards),
        num_documents=sum(shard.num_documents for shard in shards),
        shards=tuple(shards),
    )


def read_manifest(folder: str | Path) -> Manifest:
    """Read <folder>/manifest.json; FileNotFoundError without one, ValueError where it is not as it was written."""
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
        file.write(sealed_json(asdict(manifest), kind=KIND))


def shard_from_json(values: dict) -> Shard:
    """Return the Shard that asdict() made `values` of; ValueError where fields are missing or unknown."""
    lists = {name: tuple(values[name]) for name in ("block_xxh3", "skipped")}
    return Shard(**_exactly(Shard, values) | lists)


def token_dtype(vocab_size: int) -> str:
    """Return Megatron's choice of dtype: two bytes per token where ids fit."""
    return "uint16" if vocab_size < 65500 else "int32"


def corpus_digest(shards: list[Shard] | tuple[Shard, ...], tokenizer_digest: str) -> str:
    """Return "sha256:<64 hex>" over the tokenizer's digest and, in order, all that is recorded of each shard's files.

    It follows tokens, borders of documents and of shards, and the length of blocks; names and sources are left out.
    """
    lines = [tokenizer_digest, *(_digest_line(shard) for shard in shards)]
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digest_line(shard: Shard) -> str:
    numbers = f"{shard.num_tokens} {shard.num_documents} {shard.block_bytes}"
    return " ".join([numbers, shard.index_xxh3, *shard.block_xxh3])


def _parse(path: Path) -> Manifest:
    values = _content(path)
    if values["schema_version"] == 2:
        values["rules"] = asdict(DocumentRules(end_token_rule=values.pop("end_token_rule")))
        values["shards"] = [shard | {"skipped": []} for shard in values["shards"]]
    elif values["schema_version"] != SCHEMA_VERSION:
        raise _wrong_version(path, values["schema_version"])
    try:
        parsed = {"rules": DocumentRules(**values["rules"]), "shards": tuple(map(shard_from_json, values["shards"]))}
        return Manifest(**_exactly(Manifest, values) | parsed)
    except ValueError as error:
        raise ValueError(f"{path} is not a manifest of token shards ({error}); {MAKE_AGAIN}") from error


def _content(path: Path) -> dict:
    content = path.read_bytes()
    try:
        return unsealed(content, kind=KIND)
    except ValueError as error:
        if _is_version_1(content):
            raise _wrong_version(path, 1) from None
        raise ValueError(f"{path} is damaged: {error}; copy it again, or {MAKE_AGAIN}") from None


def _is_version_1(content: bytes) -> bool:
    """Version 1 was JSON without a seal."""
    try:
        return json.loads(content)["schema_version"] == 1
    except (KeyError, TypeError, ValueError):
        return False


def _wrong_version(path: Path, found: int) -> ValueError:
    return ValueError(f"{path} has schema_version {found}, this code reads {SCHEMA_VERSION}; {MAKE_AGAIN}")


def _exactly(kind: type, values: dict) -> dict:
    """Return `values`, or ValueError naming the fields of `kind` that are missing or unknown."""
    expected = {field.name for field in fields(kind)}
    if values.keys() != expected:
        raise ValueError(f"{kind.__name__} has the wrong fields: {sorted(expected ^ values.keys())}")
    return values
