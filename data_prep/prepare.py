"""Write the token shards, the mixture and the counts of a corpus: `python -m data_prep.prepare RECIPE --raw DIR ...`.

Every part of the recipe becomes a folder of token shards in --output. mixture.yaml there lists the parts with their
epochs, and counts.safetensors counts the mixture's tokens. Under an MPI launcher the ranks share each part's work.
If the command is killed, the same command resumes: it keeps finished parts and finishes the others.
"""

import argparse
import sys
import time
from pathlib import Path

from data_prep.counts.count_folders import count_folders
from data_prep.counts.counts_file import write_counts
from data_prep.encoding.make_encoder import BACKENDS
from data_prep.encoding.tokenizer import load_tokenizer, tokenizer_digest
from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.processes.mpi_ranks import MpiRanks, find_ranks, ranks_end_together
from data_prep.shards.manifest import MANIFEST_NAME, Manifest, read_manifest
from data_prep.shards.mixture import MIXTURE_NAME, write_mixture
from data_prep.tokenizing.corpus_recipe import CorpusPart, read_corpus_recipe
from data_prep.tokenizing.tokenize_folder import summary, tokenize_folder
from data_prep.tokenizing.unfinished import SPEC_NAME


@ranks_end_together
@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    ranks = find_ranks()
    if not Path(arguments.recipe).is_file():
        raise FileNotFoundError(f"{arguments.recipe} is not a file; give a recipe, such as one of data_prep/corpora/")
    parts, raw, output = read_corpus_recipe(arguments.recipe), Path(arguments.raw), Path(arguments.output)
    unfinished = ranks.broadcast(_unfinished(parts, raw, output, arguments.tokenizer) if ranks.rank == 0 else None)
    for part in parts:
        if part.name not in unfinished:
            continue
        start = time.perf_counter()
        manifest = tokenize_folder(
            part.inputs(raw),
            tokenizer=arguments.tokenizer,
            output=output / part.name,
            end_token=arguments.end_token,
            rules=part.rules,
            backend=arguments.backend,
            num_workers=arguments.workers,
            max_bad_records=arguments.max_bad_records,
            ranks=ranks,
        )
        if manifest is not None:
            print(f"{part.name}: {summary(manifest, seconds=time.perf_counter() - start)}", flush=True)
    _finish(parts, output, num_workers=arguments.workers, ranks=ranks)


def _unfinished(parts: list[CorpusPart], raw: Path, output: Path, tokenizer: str) -> list[str]:
    """Return the names of the parts to write; ValueError if raw shards are missing, or a part was written otherwise."""
    digest = tokenizer_digest(load_tokenizer(tokenizer))
    sources = {part.name: [shard.source for shard in part.find_raw_shards(raw)] for part in parts}
    unfinished = []
    for part in parts:
        folder = output / part.name
        if not (folder / MANIFEST_NAME).is_file() or (folder / SPEC_NAME).is_file():
            unfinished.append(part.name)
            continue
        manifest = read_manifest(folder)
        _check_finished(folder, manifest, part, sources=sources[part.name], digest=digest)
        print(f"{part.name}: already finished, {manifest.num_tokens:,} tokens", flush=True)
    return unfinished


def _check_finished(folder: Path, manifest: Manifest, part: CorpusPart, *, sources: list[str], digest: str) -> None:
    expected = {"tokenizer_digest": digest, "rules": part.rules, "sources": sources}
    found = {
        "tokenizer_digest": manifest.tokenizer_digest,
        "rules": manifest.rules,
        "sources": [shard.source for shard in manifest.shards],
    }
    for name, value in expected.items():
        if found[name] != value:
            raise ValueError(
                f"{folder} was written with {name} {found[name]}, but now it is {value}; remove the folder to write it "
                "again, or give another --output"
            )


def _finish(parts: list[CorpusPart], output: Path, *, num_workers: int, ranks: MpiRanks) -> None:
    """Write the mixture and the counts of its tokens."""
    if ranks.rank == 0:
        write_mixture(output / MIXTURE_NAME, {part.name: part.epochs for part in parts})
    ranks.wait()
    counts = count_folders([output], num_workers=num_workers, ranks=ranks)
    if ranks.rank == 0:
        write_counts(output / "counts.safetensors", counts)
        print(f"{counts.num_tokens:,} tokens in an epoch of the mixture -> {output / MIXTURE_NAME}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.prepare", description=__doc__)
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help="YAML file such as data_prep/corpora/roberta_cc100en.yaml")
    add("--raw", required=True, metavar="DIR", help="folder to which the recipe's inputs are relative")
    add("--tokenizer", required=True, metavar="DIR", help="folder with tokenizer.json")
    add("--output", required=True, metavar="DIR", help="folder in which to write one folder per part")
    add("--workers", type=int, default=1, metavar="N", help="N processes, one raw shard each at a time (default: 1)")
    add("--backend", choices=BACKENDS, default="tokenizers", help="gigatoken is faster; the ids are the same")
    add("--end_token", metavar="TEXT", help="token that ends documents (default: the tokenizer's own, eos_token)")
    add("--max_bad_records", type=int, default=0, metavar="N", help="skip up to N bad records per part (default: 0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
