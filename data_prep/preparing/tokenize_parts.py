"""Tokenize the parts of a corpus, each into a folder of its own; finished parts are kept."""

import sys
import time
from pathlib import Path

from data_prep.preparing.corpus import Corpus
from data_prep.processes.mpi_ranks import MpiRanks
from data_prep.shards.manifest import MANIFEST_NAME, read_manifest
from data_prep.tokenizing.corpus_recipe import CorpusPart
from data_prep.tokenizing.summary import summary, warnings
from data_prep.tokenizing.tokenize_folder import tokenize_folder
from data_prep.tokenizing.unfinished import SPEC_NAME


def tokenize_parts(corpus: Corpus, output: Path, *, keep_going: bool, ranks: MpiRanks, **options) -> None:
    """Write one folder of token shards per part; `options` are those of tokenize_folder.

    Finished parts come first: if one was written otherwise or its text has changed, ValueError before anything is
    written. With `keep_going`, the error names the unreadable text of all parts. Collective over `ranks`.
    """
    order = sorted(corpus.parts, key=lambda part: not _is_finished(output / part.name)) if ranks.rank == 0 else None
    failures = []
    for part in ranks.broadcast(order):
        try:
            _tokenize_part(part, corpus.raw, output / part.name, keep_going=keep_going, ranks=ranks, **options)
        except ValueError as error:
            if not keep_going:
                raise
            failures.append(f"part {part.name}: {error}")
    if failures:
        raise ValueError("\n".join(failures))


def _tokenize_part(part: CorpusPart, raw: Path, folder: Path, *, overwrite: bool, ranks: MpiRanks, **options) -> None:
    start = time.perf_counter()
    is_kept = ranks.rank == 0 and _is_finished(folder) and not overwrite
    was = read_manifest(folder).corpus_digest if is_kept else None
    manifest = tokenize_folder(
        part.inputs(raw),
        output=folder,
        leave_out=folder.parent,
        rules=part.rules,
        overwrite=overwrite,
        ranks=ranks,
        **options,
    )
    if manifest is None:  # rank 0 reports for all
        return
    if manifest.corpus_digest == was:
        print(f"{part.name}: already finished, {manifest.num_tokens:,} tokens", flush=True)
        return
    print(f"{part.name}: {summary(manifest, seconds=time.perf_counter() - start)}", flush=True)
    for warning in warnings(manifest):
        print(f"warning: {part.name}: {warning}", file=sys.stderr)


def _is_finished(folder: Path) -> bool:
    return (folder / MANIFEST_NAME).is_file() and not (folder / SPEC_NAME).is_file()
