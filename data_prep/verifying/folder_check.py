"""Check a folder of token shards: its tokenizer, its list of sources, and all token shards, divided among processes."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from data_prep.encoding.tokenizer import load_tokenizer, tokenizer_digest
from data_prep.processes.mpi_ranks import ONE_PROCESS, MpiRanks
from data_prep.processes.parallel_map import parallel_map
from data_prep.shards.manifest import Manifest, read_manifest
from data_prep.shards.tokenizer_files import TOKENIZER_FOLDER, check_tokenizer_files
from data_prep.shards.verified import write_stamp
from data_prep.tokenizing.sources import SOURCES_NAME, read_sources
from data_prep.verifying.shard_check import check_shard, problem_of


def verify(folder: Path, *, num_workers: int = 1, ranks: MpiRanks = ONE_PROCESS) -> list[str]:
    """Return the problems, one sentence per file; FileNotFoundError if `folder` has no manifest.

    Leave a stamp of the intact .bin files, so that training need not compare their digests again.
    Collective over `ranks`: every rank must call it. Rank 0 returns the problems that all ranks found.
    """
    try:
        manifest = read_manifest(folder)
    except ValueError as error:
        return [str(error)]  # without an intact manifest there is nothing to compare the files with
    problems = _problems_beside_shards(folder, manifest) if ranks.rank == 0 else []
    size = np.dtype(manifest.dtype).itemsize
    verdicts = parallel_map(
        partial(check_shard, folder=folder, manifest=_without_shards(manifest)),
        manifest.shards,
        [shard.num_tokens * size for shard in manifest.shards],
        desc="verify",
        num_workers=num_workers,
        ranks=ranks,
    )
    if ranks.rank == 0:
        pairs = zip(manifest.shards, verdicts, strict=True)
        write_stamp(folder, manifest, {shard.name: verdict.state for shard, verdict in pairs if verdict.state})
    return problems + [problem for verdict in verdicts for problem in verdict.problems]


def intact(folder: Path) -> str:
    """Return one line about a folder without problems."""
    manifest = read_manifest(folder)
    num_skipped = sum(len(source.skipped) for source in read_sources(folder, manifest))
    tokenizer = "intact" if (folder / TOKENIZER_FOLDER).is_dir() else "none in the folder"
    return (
        f"{folder} is intact (shards: {len(manifest.shards):,}, tokens: {manifest.num_tokens:,}, "
        f"records skipped: {num_skipped:,}, tokenizer: {tokenizer})"
    )


def _problems_beside_shards(folder: Path, manifest: Manifest) -> list[str]:
    tokenizer, checks = folder / TOKENIZER_FOLDER, {}
    if tokenizer.is_dir() or manifest.tokenizer_files:  # predictions have none
        checks[tokenizer] = partial(_check_tokenizer, tokenizer, manifest)
    if manifest.sources is not None:
        checks[folder / SOURCES_NAME] = partial(read_sources, folder, manifest)
    problems = [problem_of(path, check) for path, check in checks.items()]
    return [problem for problem in problems if problem]


def _without_shards(manifest: Manifest) -> Manifest:
    """What workers need of the manifest, without its longest part."""
    return replace(manifest, shards=())


def _check_tokenizer(path: Path, manifest: Manifest) -> None:
    check_tokenizer_files(path.parent, manifest.tokenizer_files)
    found, expected = tokenizer_digest(load_tokenizer(path)), manifest.tokenizer_digest
    if found != expected:
        raise ValueError(f"{path} has digest {found}, but the tokens were made with {expected}; copy it again")
