"""The manifest of a folder of token shards: the meaning of the tokens, and the digests of all files."""

import hashlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from data_prep.documents.document_rules import DocumentRules
from data_prep.shards.tokenizer_files import TokenizerFile
from data_prep.storage.atomic_file import atomic_file
from data_prep.storage.sealed_json import sealed_json, unsealed

SCHEMA_VERSION = 2
KIND = "token_shards"
MANIFEST_NAME = "manifest.json"
MAKE_AGAIN = "run data_prep.tokenize_shards again (predictions: launch/predict.py)"


@dataclass(frozen=True)
class Shard:
    """Three files: the tokens in <name>.bin, documents in <name>.idx, digests of the tokens in <name>.sum."""

    name: str
    num_tokens: int
    num_documents: int
    block_bytes: int  # length of the blocks of <name>.bin; the last one may be shorter
    sums_xxh3: str  # 32 hex digits, xxh3-128 of the end of <name>.sum, which covers the rest of it
    index_xxh3: str  # 16 hex digits, xxh3-64 of <name>.idx


@dataclass(frozen=True)
class SourcesFile:
    """The beginning of sources.jsonl that describes a folder; an extension that is not finished appends to it."""

    num_bytes: int
    xxh3: str  # 32 hex digits, xxh3-128


@dataclass(frozen=True)
class Manifest:
    """Everything that reading the token shards requires, and that distinguishes one corpus from another."""

    schema_version: int
    tokenizer_digest: str
    vocab_size: int
    end_token: str  # follows every document
    end_token_id: int
    dtype: str  # "uint16" or "int32", little-endian
    rules: DocumentRules  # where raw documents end, and where end tokens stand
    corpus_digest: str  # of the tokenizer and the shards in their order
    num_tokens: int
    num_documents: int
    tokenizer_files: tuple[TokenizerFile, ...]  # of <folder>/tokenizer; predictions have none
    sources: SourcesFile | None  # None for predictions
    shards: tuple[Shard, ...]


def make_manifest(
    shards: list[Shard],
    *,
    tokenizer_digest: str,
    vocab_size: int,
    end_token: str,
    end_token_id: int,
    rules: DocumentRules = DocumentRules(),
    tokenizer_files: tuple[TokenizerFile, ...] = (),
    sources: SourcesFile | None = None,
) -> Manifest:
    """Return the manifest of finished shards."""
    return Manifest(
        schema_version=SCHEMA_VERSION,
        tokenizer_digest=tokenizer_digest,
        vocab_size=vocab_size,
        end_token=end_token,
        end_token_id=end_token_id,
        dtype=token_dtype(vocab_size),
        rules=rules,
        corpus_digest=corpus_digest(shards, tokenizer_digest),
        num_tokens=sum(shard.num_tokens for shard in shards),
        num_documents=sum(shard.num_documents for shard in shards),
        tokenizer_files=tokenizer_files,
        sources=sources,
        shards=tuple(shards),
    )


def read_manifest(folder: str | Path) -> Manifest:
    """Read <folder>/manifest.json; FileNotFoundError if it is missing, ValueError if it has changed."""
    path = Path(folder) / MANIFEST_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {folder} is not a finished folder of shards; tokenize it again")
    manifest = _parse(path)
    found = corpus_digest(manifest.shards, manifest.tokenizer_digest)
    if manifest.corpus_digest != found:
        raise ValueError(f"{path} says corpus_digest {manifest.corpus_digest} but its shards give {found}; restore it")
    return manifest


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Write <folder>/manifest.json atomically, which finishes the folder."""
    with atomic_file(Path(folder) / MANIFEST_NAME) as file:
        file.write(sealed_json(asdict(manifest), kind=KIND))


def shard_from_json(values: dict) -> Shard:
    """Return the Shard of which asdict() made `values`; ValueError if fields are missing or unknown."""
    return Shard(**_exactly(Shard, values))


def token_dtype(vocab_size: int) -> str:
    """Return Megatron's choice of dtype: two bytes per token if the ids fit."""
    return "uint16" if vocab_size < 65500 else "int32"


def corpus_digest(shards: list[Shard] | tuple[Shard, ...], tokenizer_digest: str) -> str:
    """Return "sha256:<64 hex>" of the tokenizer's digest and, in order, the sizes and digests of each shard's files.

    It depends on tokens, on borders of documents and shards, and on the length of blocks, but not on names and sources.
    """
    lines = [tokenizer_digest, *(_digest_line(shard) for shard in shards)]
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digest_line(shard: Shard) -> str:
    return f"{shard.num_tokens} {shard.num_documents} {shard.block_bytes} {shard.index_xxh3} {shard.sums_xxh3}"


def _parse(path: Path) -> Manifest:
    values = _content(path)
    if values["schema_version"] != SCHEMA_VERSION:
        found = values["schema_version"]
        raise ValueError(f"{path} has schema_version {found}, this code reads {SCHEMA_VERSION}; {MAKE_AGAIN}")
    try:
        values = _exactly(Manifest, values)
        parsed = {
            "rules": DocumentRules(**values["rules"]),
            "tokenizer_files": tuple(
                TokenizerFile(**_exactly(TokenizerFile, file)) for file in values["tokenizer_files"]
            ),
            "sources": values["sources"] and SourcesFile(**_exactly(SourcesFile, values["sources"])),
            "shards": tuple(map(shard_from_json, values["shards"])),
        }
        return Manifest(**values | parsed)
    except ValueError as error:
        raise ValueError(f"{path} is not a manifest of token shards ({error}); {MAKE_AGAIN}") from error


def _content(path: Path) -> dict:
    try:
        return unsealed(path.read_bytes(), kind=KIND)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; copy it again, or {MAKE_AGAIN}") from None


def _exactly(kind: type, values: dict) -> dict:
    """Return `values`; ValueError names the fields of `kind` that are missing or unknown."""
    expected = {field.name for field in fields(kind)}
    if values.keys() != expected:
        raise ValueError(f"{kind.__name__} has the wrong fields: {sorted(expected ^ values.keys())}")
    return values
