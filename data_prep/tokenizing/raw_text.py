"""Find the raw text of a folder's token shards again, and notice what is missing, other or new in it."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.raw_shards import RawShard
from data_prep.tokenizing.folder_plan import PlannedShard
from data_prep.tokenizing.sources import RawPart, in_words, part_of, raw_digest
from data_prep.tokenizing.unfinished import START_OVER, FinishedShard, RecordedPlan, remove_record

_RANGE = ("start", "end")


@dataclass(frozen=True)
class FoundText:
    """Recorded parts of raw shards beside the raw shards that are there now."""

    raw_shards: list[RawShard | None]  # for each recorded part; None if it is missing
    is_same: list[bool]  # for each recorded part: whether size and time are those recorded, and of no other raw shard
    new: list[RawShard]  # raw shards of which nothing is recorded


def find_plan(
    folder: Path,
    recorded: RecordedPlan,
    finished: dict[str, FinishedShard],
    raw_shards: list[RawShard],
    rules: DocumentRules,
) -> tuple[list[PlannedShard], list[RawShard]]:
    """Return the recorded plan, with the raw shards of today, and the raw shards that it lacks.

    ValueError if text is missing or, in a finished token shard, other than it was: sizes and times are compared and,
    if only the time differs or another raw shard has both, digests. Other text is read again, and its record removed,
    unless a byte range no longer fits it.
    """
    parts = [part for _, parts in recorded for part in parts]
    text = find_text([parts], raw_shards)
    digests = {
        (name, number): source.xxh3 for name, each in finished.items() for number, source in enumerate(each.sources)
    }
    places = [(name, number) for name, parts in recorded for number in range(len(parts))]
    for place, part, raw_shard, is_same in zip(places, parts, text.raw_shards, text.is_same, strict=True):
        if not is_same:
            _check_text(folder, part, raw_shard, digests.get(place), rules)
            if place not in digests:
                remove_record(folder, place[0])
    found = iter(text.raw_shards)
    return [PlannedShard(name, tuple(next(found) for _ in parts)) for name, parts in recorded], text.new


def refuse_new(folder: Path, new: list[RawShard]) -> None:
    raise ValueError(
        f"{folder} has no tokens of {new[0].label} ({len(new)} new raw shards); repeat the command with --extend to "
        f"append them, {START_OVER}"
    )


def _check_text(
    folder: Path, part: RawPart, raw_shard: RawShard | None, xxh3: str | None, rules: DocumentRules
) -> None:
    """xxh3: the digest of the text of a finished token shard; None if it is unfinished."""
    if raw_shard is None:
        raise ValueError(
            f"{folder} holds text of {part.source}, which this command does not read; give it too, {START_OVER}"
        )
    was, is_now = part.identity, part_of(raw_shard).identity
    has_its_size = was.get("num_bytes") == is_now.get("num_bytes")
    if xxh3 is None and (has_its_size or not _is_range(was)):
        return
    if xxh3 is None or not has_its_size or raw_digest(raw_shard, rules, lambda num_bytes: None) != xxh3:
        raise ValueError(
            f"{raw_shard.label} has changed since {folder} was made of it: it had "
            f"{in_words(was)}, now it has {in_words(is_now)}; {START_OVER}"
        )


def find_text(recorded: list[list[RawPart]], raw_shards: list[RawShard]) -> FoundText:
    """Find the raw shard of each recorded part: one of its name, and of its size and time if there is one.

    recorded: the parts of each folder, in its order. Folders may share raw shards. The result has an entry per part.
    """
    by_source: dict[str, list[tuple[dict, RawShard]]] = defaultdict(list)
    num_alike: Counter[str] = Counter()
    for raw_shard in raw_shards:
        part = part_of(raw_shard)
        by_source[part.source].append((part.identity, raw_shard))
        num_alike[_file(part)] += 1
    parts = [part for of_folder in recorded for part in of_folder]
    keys = [key for of_folder in recorded for key in _keys(of_folder)]
    wanted = dict(zip(keys, parts, strict=True))
    chosen: dict[tuple[str, int], RawShard | None] = {}
    for is_same in (True, False):
        for key, part in wanted.items():
            if chosen.get(key) is None:
                chosen[key] = _take(by_source[part.source], _of_file(part.identity) if is_same else None)
    found = [_range_of(chosen[key], part) for key, part in zip(keys, parts, strict=True)]
    new = {id(raw_shard) for entries in by_source.values() for _, raw_shard in entries}
    return FoundText(
        found,
        [
            each is not None and part_of(each) == part and num_alike[_file(part)] == 1
            for each, part in zip(found, parts, strict=True)
        ],
        [raw_shard for raw_shard in raw_shards if id(raw_shard) in new],
    )


def _take(entries: list[tuple[dict, RawShard]], identity: dict | None) -> RawShard | None:
    """Remove and return the first entry with this identity; None as identity: the first of all."""
    for number, (found, raw_shard) in enumerate(entries):
        if identity in (None, found):
            del entries[number]
            return raw_shard
    return None


def _range_of(raw_shard: RawShard | None, part: RawPart) -> RawShard | None:
    borders = {name: part.identity[name] for name in _RANGE if name in part.identity}
    return replace(raw_shard, **borders) if raw_shard is not None and borders else raw_shard


def _is_range(identity: dict) -> bool:
    return any(name in identity for name in _RANGE)


def _keys(parts: list[RawPart]) -> list[tuple[str, int]]:
    """Return a key for each part of one folder, equal for the byte ranges of one raw shard and for no others.

    Raw shards of equal folder, name, size and time are told apart by their order: each begins with its byte 0.
    """
    num_begun: Counter[str] = Counter()
    keys = []
    for part in parts:
        num_begun[_file(part)] += part.identity.get("start", 0) == 0
        keys.append((_file(part), num_begun[_file(part)]))
    return keys


def _file(part: RawPart) -> str:
    """Return all that is recorded of the raw shard of a part."""
    return json.dumps([part.source, _of_file(part.identity)], sort_keys=True)


def _of_file(identity: dict) -> dict:
    return {name: value for name, value in identity.items() if name not in _RANGE}
