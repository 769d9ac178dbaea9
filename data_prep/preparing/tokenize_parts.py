"""Tokenize the parts of a corpus, each into a folder of its own; finished parts are kept."""

import time
from pathlib import Path

from data_prep.encoding.end_token import find_end_token
from data_prep.encoding.tokenizer import load_tokenizer, tokenizer_digest
from data_prep.preparing.corpus import Corpus
from data_prep.processes.mpi_ranks import MpiRanks
from data_prep.shards.manifest import MANIFEST_NAME, Manifest, read_manifest
from data_prep.tokenizing.corpus_recipe import CorpusPart
from data_prep.tokenizing.sources import read_sources
from data_prep.tokenizing.tokenize_folder import summary, tokenize_folder
from data_prep.tokenizing.unfinished import SPEC_NAME


def tokenize_parts(
    corpus: Corpus, output: Path, *, tokenizer: str, end_token: str | None, ranks: MpiRanks, **options
) -> None:
    """Write one folder of token shards per part; `options` are those of tokenize_folder.

    ValueError before anything is written if raw shards are missing, or a part was written otherwise. Collective over
    `ranks`: they share the work of each part.
    """
    unfinished = None
    if ranks.rank == 0:
        unfinished = _unfinished(corpus, output, tokenizer, end_token)
    for part in ranks.broadcast(unfinished):
        start = time.perf_counter()
        manifest = tokenize_folder(
            part.inputs(corpus.raw),
            tokenizer=tokenizer,
            output=output / part.name,
            end_token=end_token,
            rules=part.rules,
            ranks=ranks,
            **options,
        )
        if manifest is not None:
            print(f"{part.name}: {summary(manifest, seconds=time.perf_counter() - start)}", flush=True)


def _unfinished(corpus: Corpus, output: Path, tokenizer: str, end_token: str | None) -> list[CorpusPart]:
    """Return the parts to write; ValueError if raw shards are missing, or a part was written otherwise."""
    loaded = load_tokenizer(tokenizer)
    expected = {
        "tokenizer_digest": tokenizer_digest(loaded),
        "end_token": find_end_token(tokenizer, loaded, end_token),
    }
    sources = {part.name: [shard.source for shard in part.find_raw_shards(corpus.raw)] for part in corpus.parts}
    unfinished = []
    for part in corpus.parts:
        folder = output / part.name
        if not (folder / MANIFEST_NAME).is_file() or (folder / SPEC_NAME).is_file():
            unfinished.append(part)
            continue
        manifest = read_manifest(folder)
        _check_finished(folder, manifest, {**expected, "rules": part.rules, "sources": sources[part.name]})
        print(f"{part.name}: already finished, {manifest.num_tokens:,} tokens", flush=True)
    return unfinished


def _check_finished(folder: Path, manifest: Manifest, expected: dict) -> None:
    found = {name: getattr(manifest, name) for name in expected if name != "sources"}
    found["sources"] = [each.source for each in read_sources(folder, manifest)]
    for name, value in expected.items():
        if found[name] != value:
            raise ValueError(
                f"{folder} was written with {name} {found[name]}, but now it is {value}; remove the folder to write it "
                "again, or give another --output"
            )
