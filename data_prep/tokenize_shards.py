"""Turn raw shards into token shards: `python -m data_prep.tokenize_shards --input PATH --tokenizer DIR --output DIR`.

Each raw shard becomes one token shard, and shards are shared out among processes: the bytes do not depend on how many.
Under an MPI launcher the ranks divide the raw shards: `mpirun -n N python -m data_prep.tokenize_shards ...`.
Killed at any moment and started again, it keeps the shards that are finished and makes the others.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer

from data_prep.command_line import user_errors_in_one_line
from data_prep.manifest import Manifest, Shard, make_manifest, read_manifest, write_manifest
from data_prep.mpi_ranks import ONE_PROCESS, MpiRanks, find_ranks, ranks_end_together
from data_prep.output_folder import copy_tokenizer, locked_folder, prepare_folder
from data_prep.readers import DOCUMENT_RULES, find_inputs
from data_prep.shard_job import ShardJob, share_jobs, source_name
from data_prep.shard_workers import run_jobs
from data_prep.token_blocks import BLOCK_BYTES
from data_prep.tokenizer import end_token_id, load_tokenizer, tokenizer_digest, vocab_size
from data_prep.unfinished import Plan, forget


@ranks_end_together
@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    ranks = find_ranks()
    start = time.perf_counter()
    manifest = tokenize_shards(
        arguments.input,
        tokenizer=arguments.tokenizer,
        output=arguments.output,
        num_workers=arguments.workers,
        text_field=arguments.text_field,
        document_rule=arguments.document_rule,
        overwrite=arguments.overwrite,
        ranks=ranks,
    )
    if manifest is None:  # rank 0 speaks for all
        return
    rate = manifest.num_tokens / (time.perf_counter() - start)
    print(
        f"{manifest.num_documents:,} documents, {manifest.num_tokens:,} tokens in {len(manifest.shards)} shards, "
        f"{rate:,.0f} tokens/s -> {arguments.output}"
    )


def tokenize_shards(
    inputs: list[str | Path],
    *,
    tokenizer: str | Path,
    output: str | Path,
    num_workers: int = 1,
    text_field: str = "text",
    document_rule: str = "auto",
    overwrite: bool = False,
    ranks: MpiRanks = ONE_PROCESS,
) -> Manifest | None:
    """Write the folder `output`: token shards, a copy of the tokenizer and, last of all, the manifest.

    A folder that the same call left unfinished is finished. ValueError for any other folder that is not empty, or
    with `overwrite` it is replaced. Collective over `ranks`: each of them makes its share of the token shards, rank 0
    does the rest and returns the manifest, the others return None.
    """
    run = partial(_run_share, num_workers=num_workers, ranks=ranks)
    if ranks.rank > 0:
        run(None)
        return None
    if num_workers < 1:
        raise ValueError(f"--workers {num_workers} must be at least 1")
    paths = find_inputs(inputs)
    loaded = load_tokenizer(tokenizer)
    end_token_id(loaded)
    plan = _make_plan(paths, loaded, text_field=text_field, document_rule=document_rule)
    with locked_folder(output) as output:
        if prepare_folder(output, plan, overwrite=overwrite):
            run([])
            return read_manifest(output)
        copy_tokenizer(tokenizer, output)
        return _finish(output, plan, run(_make_jobs(paths, plan, output)), loaded)


def _run_share(jobs: list[ShardJob] | None, *, num_workers: int, ranks: MpiRanks) -> list[Shard]:
    """Run this rank's share of rank 0's `jobs`; on rank 0 return the shards of all in the order of the jobs.

    Collective over `ranks`: every rank must call it.
    """
    shares = ranks.broadcast(jobs and share_jobs(jobs, ranks.world_size))
    shards = run_jobs(shares[ranks.rank], num_workers=num_workers, ranks=ranks) if shares else []
    ranks.wait()
    gathered = ranks.gather(shards)
    by_name = {shard.name: shard for shards in gathered or () for shard in shards}
    return [by_name[job.name] for job in jobs or ()]


def _make_plan(paths: list[Path], tokenizer: Tokenizer, *, text_field: str, document_rule: str) -> Plan:
    return Plan(
        tokenizer_digest=tokenizer_digest(tokenizer),
        text_field=text_field,
        document_rule=document_rule,
        block_bytes=BLOCK_BYTES,
        shards=tuple(_shard_name(number, path) for number, path in enumerate(paths)),
        sources=tuple(source_name(path) for path in paths),
    )


def _make_jobs(paths: list[Path], plan: Plan, output: Path) -> list[ShardJob]:
    return [
        ShardJob(path, name, output, plan.digest, plan.text_field, plan.document_rule)
        for path, name in zip(paths, plan.shards, strict=True)
    ]


def _finish(output: Path, plan: Plan, shards: list[Shard], tokenizer: Tokenizer) -> Manifest:
    """Write the manifest, and only then forget what it was made from."""
    manifest = make_manifest(
        shards,
        tokenizer_digest=plan.tokenizer_digest,
        vocab_size=vocab_size(tokenizer),
        end_token_id=end_token_id(tokenizer),
    )
    write_manifest(output, manifest)
    forget(output, plan)
    return manifest


def _shard_name(number: int, path: Path) -> str:
    """Return e.g. "00003-en-00000": the number keeps the order and tells equal names apart."""
    return f"{number:05d}-{path.name.split('.')[0]}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.tokenize_shards", description=__doc__)
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="PATH", help="raw shards, or folders of them: txt, jsonl, parquet")
    add("--tokenizer", required=True, metavar="DIR", help="folder with tokenizer.json")
    add("--output", required=True, metavar="DIR", help="folder to write: new, empty, or begun by the same command")
    add("--workers", type=int, default=1, help="processes; one raw shard each at a time (default: 1)")
    add("--text_field", default="text", help="field of .jsonl, column of .parquet that holds the text (default: text)")
    add(
        "--document_rule",
        choices=DOCUMENT_RULES,
        default="auto",
        help="what ends a document in .txt (auto: a blank line)",
    )
    add("--overwrite", action="store_true", help="replace the token shards that --output already holds")
    return parser


if __name__ == "__main__":
    sys.exit(main())
