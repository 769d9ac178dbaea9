"""What an unfinished folder of token shards remembers: the plan that it follows, and a record of each finished shard.

A shard is kept when its record belongs to the plan, its raw shard is the one that was read and its files have their
digests; otherwise it is made again. Once the manifest is written the plan and the records are removed.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash

from data_prep.shards.blocks import check_block, read_blocks
from data_prep.shards.manifest import Shard, shard_from_json
from data_prep.shards.megatron_index import check_index
from data_prep.storage.atomic_file import atomic_file, sync_folder
from data_prep.storage.sealed_json import sealed_json, unsealed

PLAN_NAME = "unfinished.json"
PLAN_KIND, RECORD_KIND = "unfinished_token_shards", "finished_token_shard"
SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Plan:
    """All that decides the bytes of a folder, but for what is in the raw shards."""

    tokenizer_digest: str
    text_field: str
    document_rule: str
    lines_per_document: int
    end_token_rule: str
    block_bytes: int
    shards: tuple[str, ...]  # names of the token shards in their order
    sources: tuple[str, ...]  # of each raw shard, as the manifest names it
    schema_version: int = SCHEMA_VERSION

    @property
    def digest(self) -> str:
        return xxhash.xxh3_128_hexdigest(self.to_bytes())

    def to_bytes(self) -> bytes:
        return sealed_json(asdict(self), kind=PLAN_KIND)


def write_plan(folder: Path, plan: Plan) -> None:
    with atomic_file(folder / PLAN_NAME) as file:
        file.write(plan.to_bytes())


def check_plan(folder: Path, plan: Plan) -> None:
    """Raise ValueError where <folder>/unfinished.json is not `plan`, naming what differs."""
    path = folder / PLAN_NAME
    advice = "give another --output, or --overwrite to begin anew"
    try:
        begun = unsealed(path.read_bytes(), kind=PLAN_KIND)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; {advice}") from None
    for name, value in unsealed(plan.to_bytes(), kind=PLAN_KIND).items():
        if begun.get(name) != value:
            was, is_now = _first_difference(begun.get(name), value)
            raise ValueError(
                f"{folder} was begun with {name} {was} and not finished, now it is {is_now}; repeat the command that "
                f"began it, {advice}"
            )


def is_recorded(folder: Path, name: str) -> bool:
    """Whether shard `name` seems to be finished; only finished_shard looks closely."""
    return _record_path(folder, name).is_file()


def write_record(folder: Path, shard: Shard, *, plan_digest: str, raw_shard: dict) -> None:
    """Record that the files of `shard` are on the disk; `raw_shard` is its identity before it was read."""
    content = {"plan_digest": plan_digest, "raw_shard": raw_shard, "shard": asdict(shard)}
    with atomic_file(_record_path(folder, shard.name)) as file:
        file.write(sealed_json(content, kind=RECORD_KIND))


def finished_shard(folder: Path, name: str, *, plan_digest: str, raw_shard: dict) -> Shard | None:
    """Return the shard where its record and both of its files are sound and belong to the plan and the raw shard."""
    try:
        record = unsealed(_record_path(folder, name).read_bytes(), kind=RECORD_KIND)
        if (record["plan_digest"], record["raw_shard"]) != (plan_digest, raw_shard):
            return None
        shard = shard_from_json(record["shard"])
        _check_files(folder, shard)
    except (OSError, ValueError):
        return None
    return shard


def forget(folder: Path, plan: Plan) -> None:
    """Remove the records and, last, the plan, whose presence says that something may be left to do."""
    for name in plan.shards:
        _record_path(folder, name).unlink(missing_ok=True)
    (folder / PLAN_NAME).unlink(missing_ok=True)
    sync_folder(folder)


def _check_files(folder: Path, shard: Shard) -> None:
    index, tokens = (folder / f"{shard.name}.{suffix}" for suffix in ("idx", "bin"))
    check_index(index, index.read_bytes(), xxh3=shard.index_xxh3)
    for block, content in zip(range(len(shard.block_xxh3)), read_blocks(tokens, shard), strict=True):
        check_block(tokens, shard, block, content)


def _first_difference(was: object, is_now: object) -> tuple[object, object]:
    """Of two lists return the first entries that differ, or their lengths; other values are returned as they are."""
    if not isinstance(was, list) or not isinstance(is_now, list):
        return was, is_now
    if len(was) != len(is_now):
        return f"({len(was)} of them)", f"({len(is_now)} of them)"
    return next(pair for pair in zip(was, is_now, strict=True) if pair[0] != pair[1])


def _record_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.done.json"
