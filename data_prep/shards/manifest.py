"""The manifest of a folder of token shards: the meaning of the tokens, and the digests of all files."""

import hashlib
import re
import reprlib
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep.documents.document_rules import DocumentRules
from data_prep.shards.tokenizer_files import TokenizerFile
from data_prep.storage.atomic_file import atomic_file
from data_prep.storage.sealed_json import sealed_json, unsealed
from data_prep.storage.typed_json import from_json

SCHEMA_VERSION = 2
KIND = "token_shards"
MANIFEST_NAME = "manifest.json"
MAKE_AGAIN = "run data_prep.tokenize_shards again (predictions: launch/predict.py)"
LARGEST_BLOCK = 2**20  # bytes; a block is read as a whole
LARGEST_VOCABULARY = 2**31  # ids are int32
_HEX_DIGITS = "0123456789abcdef"
_PLAIN_NAME = re.compile(r"[^./\0][^/\0]{0,250}")  # of a file of its folder, with room for a suffix


@dataclass(frozen=True)
class Shard:
    """Three files: the tokens in <name>.bin, documents in <name>.idx, digests of the tokens in <name>.sum.

    ValueError for numbers, digests and names that no shard has; a name leads to no other folder and to no hidden file.
    """

    name: str
    num_tokens: int
    num_documents: int
    block_bytes: int  # length of the blocks of <name>.bin; the last one may be shorter
    sums_xxh3: str  # 32 hex digits, xxh3-128 of the end of <name>.sum, which covers the rest of it
    index_xxh3: str  # 16 hex digits, xxh3-64 of <name>.idx

    def __post_init__(self):
        if not _PLAIN_NAME.fullmatch(self.name):
            raise ValueError(f"{_short(self.name)} is not a plain name of a shard")
        if not (0 <= self.num_tokens < 2**63 and 0 <= self.num_documents < 2**63):
            raise ValueError(
                f"{self.name!r} has num_tokens={_short(self.num_tokens)}, num_documents={_short(self.num_documents)}"
            )
        if not 1 <= self.block_bytes <= LARGEST_BLOCK:
            raise ValueError(f"{self.name!r} has block_bytes={_short(self.block_bytes)}, not 1 to {LARGEST_BLOCK}")
        if not (is_digest(self.sums_xxh3, 32) and is_digest(self.index_xxh3, 16)):
            raise ValueError(f"{self.name!r} has digests that are not 32 and 16 hex digits")


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
    manifest = _parsed(path)
    found = corpus_digest(manifest.shards, manifest.tokenizer_digest)
    if manifest.corpus_digest != found:
        raise ValueError(f"{path} says corpus_digest {manifest.corpus_digest} but its shards give {found}; restore it")
    return manifest


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Write <folder>/manifest.json atomically, which finishes the folder."""
    with atomic_file(Path(folder) / MANIFEST_NAME) as file:
        file.write(sealed_json(asdict(manifest), kind=KIND))


def token_dtype(vocab_size: int) -> str:
    """Return Megatron's choice of dtype: two bytes per token if the ids fit."""
    return "uint16" if vocab_size < 65500 else "int32"


def corpus_digest(shards: list[Shard] | tuple[Shard, ...], tokenizer_digest: str) -> str:
    """Return "sha256:<64 hex>" of the tokenizer's digest and, in order, the sizes and digests of each shard's files.

    It depends on tokens, on borders of documents and shards, and on the length of blocks, but not on names and sources.
    """
    lines = [tokenizer_digest, *(_digest_line(shard) for shard in shards)]
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def is_digest(text: str, num_digits: int) -> bool:
    """Whether `text` consists of this number of lower-case hex digits."""
    return len(text) == num_digits and not text.strip(_HEX_DIGITS)


def check_listed(path: Path) -> None:
    """Raise FileNotFoundError if a file of the manifest is missing."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is listed in the manifest but missing; copy it here or tokenize again")


def check_size(path: Path, found: int, written: int) -> None:
    """Raise ValueError if a file of the manifest has the wrong number of bytes."""
    if found != written:
        raise ValueError(f"{path} has {found} bytes but the manifest says {written}; copy it or tokenize again")


def _digest_line(shard: Shard) -> str:
    return f"{shard.num_tokens} {shard.num_documents} {shard.block_bytes} {shard.index_xxh3} {shard.sums_xxh3}"


def _parsed(path: Path) -> Manifest:
    values = _content(path)
    found = values.get("schema_version") if isinstance(values, dict) else None
    if type(found) is not int or found != SCHEMA_VERSION:
        raise ValueError(f"{path} has schema_version {_short(found)}, this code reads {SCHEMA_VERSION}; {MAKE_AGAIN}")
    try:
        manifest = from_json(Manifest, values)
        _check(manifest)
    except ValueError as error:
        raise ValueError(f"{path} is not a manifest of token shards ({str(error)[:300]}); {MAKE_AGAIN}") from error
    return manifest


def _content(path: Path) -> object:
    try:
        return unsealed(path.read_bytes(), kind=KIND)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}; copy it again, or {MAKE_AGAIN}") from None


def _check(manifest: Manifest) -> None:
    """Raise ValueError if what a manifest says of the whole is not what its vocabulary and its shards give."""
    vocab_size, shards = manifest.vocab_size, manifest.shards
    if not 1 <= vocab_size <= LARGEST_VOCABULARY:
        raise ValueError(f"vocab_size is {_short(vocab_size)}, not 1 to {LARGEST_VOCABULARY}")
    if not 0 <= manifest.end_token_id < vocab_size:
        raise ValueError(f"end_token_id {_short(manifest.end_token_id)} is not below vocab_size {vocab_size}")
    expected = {
        "dtype": token_dtype(vocab_size),
        "num_tokens": sum(shard.num_tokens for shard in shards),
        "num_documents": sum(shard.num_documents for shard in shards),
    }
    for name, value in expected.items():
        if getattr(manifest, name) != value:
            raise ValueError(
                f"{name} is {_short(getattr(manifest, name))}, but its vocabulary and shards give {value!r}"
            )
    if len({shard.name for shard in shards}) < len(shards):
        raise ValueError("two of its shards have the same name")


def _short(value: object) -> str:
    return reprlib.repr(value)
