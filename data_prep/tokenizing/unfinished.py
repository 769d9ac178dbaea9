"""The state of an unfinished folder of token shards: its spec and plan, and one record per finished shard.

A shard is kept if its record belongs to the spec, its raw shards have not changed since they were read, and its files
have the recorded digests; otherwise it is written again. When the manifest is written, records and spec are removed.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash

from data_prep.documents.document_rules import DocumentRules
from data_prep.shards.blocks import BlockCheck
from data_prep.shards.manifest import Manifest, Shard
from data_prep.shards.megatron_index import check_index
from data_prep.storage.atomic_file import atomic_file, sync_folder
from data_prep.storage.sealed_json import sealed_json, unsealed
from data_prep.storage.typed_json import from_json
from data_prep.tokenizing.folder_plan import PlannedShard
from data_prep.tokenizing.sources import RawPart, Source, part_of, read_sources, source_from_json

SPEC_NAME = "unfinished.json"
SPEC_KIND, RECORD_KIND = "unfinished_token_shards", "finished_token_shard"
SCHEMA_VERSION = 3
RecordedPlan = list[tuple[str, list[RawPart]]]  # name of each token shard, and what it holds
START_OVER = "give another --output, or --overwrite to start over"


@dataclass(frozen=True)
class FolderSpec:
    """Everything that decides the tokens of a raw shard, except its content."""

    tokenizer_digest: str
    end_token: str
    text_field: str
    document_rule: str
    lines_per_document: int
    end_token_rule: str
    include: tuple[str, ...]
    block_bytes: int
    schema_version: int = SCHEMA_VERSION

    @property
    def rules(self) -> DocumentRules:
        return DocumentRules(
            self.text_field, self.document_rule, self.lines_per_document, self.end_token_rule, self.include
        )

    @property
    def digest(self) -> str:
        return xxhash.xxh3_128_hexdigest(sealed_json(asdict(self), kind=SPEC_KIND))

    def to_json(self) -> dict:
        """Return it as it is read back from a file, with lists for tuples."""
        return asdict(self) | {"include": list(self.include)}


@dataclass(frozen=True)
class FinishedShard:
    """A token shard whose files are on disk, and what it was made of."""

    shard: Shard
    sources: tuple[Source, ...]

    @property
    def name(self) -> str:
        return self.shard.name


def spec_of(manifest: Manifest) -> FolderSpec:
    """Return the spec of a finished folder."""
    block_bytes = {shard.block_bytes for shard in manifest.shards}
    return FolderSpec(
        manifest.tokenizer_digest,
        manifest.end_token,
        **asdict(manifest.rules),
        block_bytes=max(block_bytes, default=0),
    )


def finished_shards(folder: Path, manifest: Manifest) -> dict[str, FinishedShard]:
    """Return the token shards of a manifest, with what they were made of, by name."""
    sources: dict[str, list[Source]] = {shard.name: [] for shard in manifest.shards}
    for source in read_sources(folder, manifest):
        sources[source.shard].append(source)
    return {shard.name: FinishedShard(shard, tuple(sources[shard.name])) for shard in manifest.shards}


def recorded_plan(finished: dict[str, FinishedShard]) -> RecordedPlan:
    return [(name, [source.part for source in each.sources]) for name, each in finished.items()]


def write_unfinished(folder: Path, spec: FolderSpec, plan: list[PlannedShard]) -> None:
    shards = [[each.name, [asdict(part_of(raw_shard)) for raw_shard in each.raw_shards]] for each in plan]
    with atomic_file(folder / SPEC_NAME) as file:
        file.write(sealed_json({"spec": asdict(spec), "shards": shards}, kind=SPEC_KIND))


def read_unfinished(folder: Path, spec: FolderSpec) -> RecordedPlan:
    """Return the plan of <folder>/unfinished.json: name and parts of each token shard; ValueError for another spec."""
    path = folder / SPEC_NAME
    try:
        recorded = unsealed(path.read_bytes(), kind=SPEC_KIND)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; {START_OVER}") from None
    try:
        was, plan = dict(recorded["spec"]), [_planned(name, parts) for name, parts in recorded["shards"]]
        if len(dict(plan)) < len(plan):
            raise ValueError("two token shards have one name")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not the plan of a folder ({error}); {START_OVER}") from error
    check_spec(folder, was, spec, state="unfinished")
    return plan


def _planned(name: str, parts: list[dict]) -> tuple[str, list[RawPart]]:
    """ValueError for a name that would leave the folder, or be hidden in it; the file may come from a stranger."""
    if not isinstance(name, str) or not name or name != Path(name).name or name.startswith("."):
        raise ValueError(f"{name!r} is not the name of a token shard")
    if not isinstance(parts, list) or not parts:
        raise ValueError(f"token shard {name} holds no raw text")
    return name, [RawPart(**part) for part in parts]


def check_spec(folder: Path, recorded: dict, spec: FolderSpec, *, state: str) -> None:
    """Raise ValueError if the folder was made by another spec, naming the first difference."""
    for name, value in spec.to_json().items():
        if recorded.get(name) != value:
            raise ValueError(
                f"{folder} is {state} and has {name} {recorded.get(name)}, but this command has {value}; repeat the "
                f"command that started it, {START_OVER}"
            )


def is_recorded(folder: Path, name: str) -> bool:
    """Whether shard `name` has a record; only finished_shard checks it."""
    return _record_path(folder, name).is_file()


def write_record(folder: Path, finished: FinishedShard, *, spec_digest: str) -> None:
    content = {"spec_digest": spec_digest, **asdict(finished)}
    with atomic_file(_record_path(folder, finished.shard.name)) as file:
        file.write(sealed_json(content, kind=RECORD_KIND))


def finished_shard(folder: Path, name: str, *, spec_digest: str, parts: list[RawPart]) -> FinishedShard | None:
    """Return shard `name` if its record and all of its files are intact and belong to the spec and the raw shards.

    parts: what it holds of the raw shards, as they are now.
    """
    try:
        record = unsealed(_record_path(folder, name).read_bytes(), kind=RECORD_KIND)
        sources = tuple(map(source_from_json, record["sources"]))
        if record["spec_digest"] != spec_digest or [each.part for each in sources] != parts:
            return None
        shard = from_json(Shard, record["shard"])
        if shard.name != name:
            return None
        _check_files(folder, shard)
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return FinishedShard(shard, sources)


def remove_records(folder: Path, names: list[str]) -> None:
    """Remove the records and, last, the spec: while it exists, the folder counts as unfinished."""
    for name in names:
        remove_record(folder, name)
    (folder / SPEC_NAME).unlink(missing_ok=True)
    sync_folder(folder)


def remove_record(folder: Path, name: str) -> None:
    """Let shard `name` be written again."""
    _record_path(folder, name).unlink(missing_ok=True)


def _check_files(folder: Path, shard: Shard) -> None:
    index, tokens = (folder / f"{shard.name}.{suffix}" for suffix in ("idx", "bin"))
    check_index(index, index.read_bytes(), xxh3=shard.index_xxh3)
    check = BlockCheck(tokens, shard, num_bytes=tokens.stat().st_size)
    for first, content in check.pieces():
        if damage := check.damage(content, first=first):
            raise ValueError(damage[0])


def _record_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.done.json"
