"""Compare raw text with the token shards that were made of it, digest by digest."""

from collections.abc import Callable
from pathlib import Path

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.raw_shards import RawShard, find_raw_shards
from data_prep.processes.mpi_ranks import ONE_PROCESS, MpiRanks
from data_prep.processes.parallel_map import parallel_map
from data_prep.shards.manifest import read_manifest
from data_prep.tokenizing.raw_text import find_text
from data_prep.tokenizing.sources import Source, raw_digest, read_sources

RawCheck = tuple[RawShard | None, Source, Path, DocumentRules]


def verify_raw(
    folders: list[Path], inputs: list[str], *, num_workers: int = 1, ranks: MpiRanks = ONE_PROCESS
) -> list[str]:
    """Return a sentence per raw shard in `inputs` that is missing, new, or other than `folders` were made of.

    Collective over `ranks`: every rank must call it. Rank 0 returns the problems that all ranks found.
    """
    manifests = [read_manifest(folder) for folder in folders]
    sources = [read_sources(folder, manifest) for folder, manifest in zip(folders, manifests, strict=True)]
    recorded = [
        (source, folder, manifest.rules)
        for folder, manifest, of_folder in zip(folders, manifests, sources, strict=True)
        for source in of_folder
    ]
    rules = manifests[0].rules
    raw_shards = find_raw_shards(inputs, text_field=rules.text_field, include=rules.include)
    text = find_text([[source.part for source in of_folder] for of_folder in sources], raw_shards)
    checks: list[RawCheck] = [(raw_shard, *of) for raw_shard, of in zip(text.raw_shards, recorded, strict=True)]
    sizes = [raw_shard.num_bytes if raw_shard is not None else 0 for raw_shard, *_ in checks]
    found = parallel_map(_check, checks, sizes, desc="verify raw text", num_workers=num_workers, ranks=ranks)
    new = [
        f"{raw_shard.label} is in none of the folders; tokenize_shards --extend appends it" for raw_shard in text.new
    ]
    return [problem for problem in found if problem] + (new if ranks.rank == 0 else [])


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
