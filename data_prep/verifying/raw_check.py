"""Compare raw text with the token shards that were made of it, digest by digest."""

from collections import defaultdict
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.files.include import Include
from data_prep.documents.raw_shards import NothingIncluded, RawShard, find_raw_shards
from data_prep.processes.mpi_ranks import ONE_PROCESS, MpiRanks
from data_prep.processes.parallel_map import parallel_map
from data_prep.shards.manifest import read_manifest
from data_prep.tokenizing.raw_text import find_text
from data_prep.tokenizing.sources import Source, raw_digest, read_sources

Recorded = tuple[Source, Path, DocumentRules]  # what a token shard in this folder was made of, by these rules
RawCheck = tuple[RawShard | None, Source, Path, DocumentRules]


def verify_raw(
    folders: list[Path], inputs: list[str], *, num_workers: int = 1, ranks: MpiRanks = ONE_PROCESS
) -> list[str]:
    """Return a sentence per raw shard in `inputs` that is missing, new, or other than `folders` were made of.

    Collective over `ranks`: every rank must call it. Rank 0 returns the problems that all ranks found.
    """
    by_rules: dict[tuple[str, Include], list[list[Recorded]]] = defaultdict(list)  # one list per folder
    for folder in folders:
        manifest = read_manifest(folder)
        rules = manifest.rules
        recorded = [(source, folder, rules) for source in read_sources(folder, manifest)]
        by_rules[rules.text_field, rules.include].append(recorded)
    checks, new = _match(by_rules, inputs)
    sizes = [raw_shard.num_bytes if raw_shard is not None else 0 for raw_shard, *_ in checks]
    found = parallel_map(_check, checks, sizes, desc="verify raw text", num_workers=num_workers, ranks=ranks)
    problems = [f"{label} is in none of the folders; tokenize_shards --extend appends it" for label in new]
    return [problem for problem in found if problem] + (problems if ranks.rank == 0 else [])


def _match(
    by_rules: dict[tuple[str, Include], list[list[Recorded]]], inputs: list[str]
) -> tuple[list[RawCheck], list[str]]:
    """Return the raw shard of each recorded source, and the labels of raw shards of which nothing is recorded.

    The raw shards are those that the same rules find: an input may hold files for some of the folders only.
    """
    checks: list[RawCheck] = []
    is_new: dict[str, bool] = {}  # by label
    unread: list[list[NothingIncluded]] = []  # by rules
    for (text_field, include), of_folders in by_rules.items():
        raw_shards, refused = _find(inputs, text_field, include)
        unread.append(refused)
        text = find_text([[source.part for source, _, _ in recorded] for recorded in of_folders], raw_shards)
        checks += [(raw_shard, *of) for raw_shard, of in zip(text.raw_shards, chain(*of_folders), strict=True)]
        new = {raw_shard.label for raw_shard in text.new}
        for raw_shard in raw_shards:
            is_new[raw_shard.label] = is_new.get(raw_shard.label, True) and raw_shard.label in new
    for error in unread[0]:
        if all(any(error.given == each.given for each in refused) for refused in unread):
            raise error
    return checks, [label for label, is_new_ in is_new.items() if is_new_]


def _find(inputs: list[str], text_field: str, include: Include) -> tuple[list[RawShard], list[NothingIncluded]]:
    """Return the raw shards in `inputs`, and an error for each input of which `include` leaves nothing."""
    refused: list[NothingIncluded] = []
    while left := [each for each in inputs if each.removeprefix("file://") not in {error.given for error in refused}]:
        try:
            return find_raw_shards(left, text_field=text_field, include=include), refused
        except NothingIncluded as error:
            refused.append(error)
    return [], refused


def _check(check: RawCheck, on_read: Callable[[int], object]) -> str | None:
    raw_shard, source, folder, rules = check
    if raw_shard is None:
        return f"{source.part.source} is missing: {folder}/{source.shard} was made of it"
    try:
        found = raw_digest(raw_shard, rules, on_read)
    except (ValueError, OSError) as error:
        return str(error)
    if found != source.xxh3:
        return f"{raw_shard.label} has digest {found}, but {folder}/{source.shard} was made of text with {source.xxh3}"
    return None
