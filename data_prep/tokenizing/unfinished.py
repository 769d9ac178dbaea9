"""The state of an unfinished folder of token shards: its spec, and one record per finished shard.

A shard is kept if its record belongs to the spec, its raw shards have not changed since they were read, and its files
have the recorded digests; otherwise it is written again. When the manifest is written, records and spec are removed.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash

from data_prep.shards.blocks import BlockCheck
from data_prep.shards.manifest import Shard, shard_from_json
from data_prep.shards.megatron_index import check_index
from data_prep.storage.atomic_file import atomic_file, sync_folder
from data_prep.storage.sealed_json import sealed_json, unsealed
from data_prep.tokenizing.sources import Source, source_from_json

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


@dataclass(frozen=True)
class FinishedShard:
    """A token shard whose files are on disk, and what it was made of."""

    shard: Shard
    sources: tuple[Source, ...]


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


def write_record(folder: Path, finished: FinishedShard, *, spec_digest: str) -> None:
    content = {"spec_digest": spec_digest, **asdict(finished)}
    with atomic_file(_record_path(folder, finished.shard.name)) as file:
        file.write(sealed_json(content, kind=RECORD_KIND))


def finished_shard(
    folder: Path, name: str, *, spec_digest: str, identities: list[tuple[str, dict]]
) -> FinishedShard | None:
    """Return shard `name` if its record and all of its files are intact and belong to the spec and raw shards.

    identities: (source, identity) of its raw shards as they are now.
    """
    try:
        record = unsealed(_record_path(folder, name).read_bytes(), kind=RECORD_KIND)
        sources = tuple(map(source_from_json, record["sources"]))
        if record["spec_digest"] != spec_digest or [(each.source, each.identity) for each in sources] != identities:
            return None
        shard = shard_from_json(record["shard"])
        _check_files(folder, shard)
    except (OSError, ValueError):
        return None
    return FinishedShard(shard, sources)


def remove_records(folder: Path, spec: FolderSpec) -> None:
    """Remove the records and, last, the spec: while it exists, the folder counts as unfinished."""
    for name in spec.shards:
        _record_path(folder, name).unlink(missing_ok=True)
    (folder / SPEC_NAME).unlink(missing_ok=True)
    sync_folder(folder)


def _check_files(folder: Path, shard: Shard) -> None:
    index, tokens = (folder / f"{shard.name}.{suffix}" for suffix in ("idx", "bin"))
    check_index(index, index.read_bytes(), xxh3=shard.index_xxh3)
    check = BlockCheck(tokens, shard, num_bytes=tokens.stat().st_size)
    for first, content in check.pieces():
        if damage := check.damage(content, first=first):
            raise ValueError(damage[0])


def _first_difference(was: object, is_now: object) -> tuple[object, object]:
    """Return the first entries in which two lists differ, or their lengths; other values are returned as they are."""
    if not isinstance(was, list) or not isinstance(is_now, list):
        return was, is_now
    if len(was) != len(is_now):
        return f"({len(was)} of them)", f"({len(is_now)} of them)"
    return next(pair for pair in zip(was, is_now, strict=True) if pair[0] != pair[1])


def _record_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.done.json"
