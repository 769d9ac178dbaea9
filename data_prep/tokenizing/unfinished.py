"""The state of an unfinished folder of token shards: its spec, and one record per finished shard.

A shard is kept if its record belongs to the spec, its raw shard has not changed since it was read, and its files have
the recorded digests; otherwise it is written again. When the manifest is written, the records and the spec are removed.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash

from data_prep.shards.blocks import check_block, read_blocks
from data_prep.shards.manifest import Shard, shard_from_json
from data_prep.shards.megatron_index import check_index
from data_prep.storage.atomic_file import atomic_file, sync_folder
from data_prep.storage.sealed_json import sealed_json, unsealed

SPEC_NAME = "unfinished.json"
SPEC_KIND, RECORD_KIND = "unfinished_token_shards", "finished_token_shard"
SCHEMA_VERSION = 3


@dataclass(frozen=True)
class FolderSpec:
    """Everything that decides the bytes of a folder, except the content of the raw shards."""

    tokenizer_digest: str
    end_token: str
    text_field: str
    document_rule: str
    lines_per_document: int
    end_token_rule: str
    block_bytes: int
    shards: tuple[str, ...]  # names of the token shards, in order
    sources: tuple[str, ...]  # the raw shard of each, as the manifest names it
    schema_version: int = SCHEMA_VERSION

    @property
    def digest(self) -> str:
        return xxhash.xxh3_128_hexdigest(self.to_bytes())

    def to_bytes(self) -> bytes:
        return sealed_json(asdict(self), kind=SPEC_KIND)


def write_spec(folder: Path, spec: FolderSpec) -> None:
    with atomic_file(folder / SPEC_NAME) as file:
        file.write(spec.to_bytes())


def check_spec(folder: Path, spec: FolderSpec) -> None:
    """Raise ValueError if <folder>/unfinished.json differs from `spec`, naming the difference."""
    path = folder / SPEC_NAME
    advice = "give another --output, or --overwrite to start over"
    try:
        recorded = unsealed(path.read_bytes(), kind=SPEC_KIND)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; {advice}") from None
    for name, value in unsealed(spec.to_bytes(), kind=SPEC_KIND).items():
        if recorded.get(name) != value:
            was, is_now = _first_difference(recorded.get(name), value)
            raise ValueError(
                f"{folder} is unfinished and has {name} {was}, but this command has {is_now}; repeat the command that "
                f"started it, {advice}"
            )


def is_recorded(folder: Path, name: str) -> bool:
    """Whether shard `name` has a record; only finished_shard checks it."""
    return _record_path(folder, name).is_file()


def write_record(folder: Path, shard: Shard, *, spec_digest: str, raw_shard: dict) -> None:
    """Record that the files of `shard` are on disk; `raw_shard` is the identity of its raw shard before reading."""
    content = {"spec_digest": spec_digest, "raw_shard": raw_shard, "shard": asdict(shard)}
    with atomic_file(_record_path(folder, shard.name)) as file:
        file.write(sealed_json(content, kind=RECORD_KIND))


def finished_shard(folder: Path, name: str, *, spec_digest: str, raw_shard: dict) -> Shard | None:
    """Return shard `name` if its record and both of its files are intact and belong to the spec and the raw shard."""
    try:
        record = unsealed(_record_path(folder, name).read_bytes(), kind=RECORD_KIND)
        if (record["spec_digest"], record["raw_shard"]) != (spec_digest, raw_shard):
            return None
        shard = shard_from_json(record["shard"])
        _check_files(folder, shard)
    except (OSError, ValueError):
        return None
    return shard


def remove_records(folder: Path, spec: FolderSpec) -> None:
    """Remove the records and, last, the spec: while it exists, the folder counts as unfinished."""
    for name in spec.shards:
        _record_path(folder, name).unlink(missing_ok=True)
    (folder / SPEC_NAME).unlink(missing_ok=True)
    sync_folder(folder)


def _check_files(folder: Path, shard: Shard) -> None:
    index, tokens = (folder / f"{shard.name}.{suffix}" for suffix in ("idx", "bin"))
    check_index(index, index.read_bytes(), xxh3=shard.index_xxh3)
    for block, content in zip(range(len(shard.block_xxh3)), read_blocks(tokens, shard), strict=True):
        check_block(tokens, shard, block, content)


def _first_difference(was: object, is_now: object) -> tuple[object, object]:
    """Return the first entries in which two lists differ, or their lengths; other values are returned as they are."""
    if not isinstance(was, list) or not isinstance(is_now, list):
        return was, is_now
    if len(was) != len(is_now):
        return f"({len(was)} of them)", f"({len(is_now)} of them)"
    return next(pair for pair in zip(was, is_now, strict=True) if pair[0] != pair[1])


def _record_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.done.json"
