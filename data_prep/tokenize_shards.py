"""Turn raw shards into token shards: `python -m data_prep.tokenize_shards --input PATH --tokenizer DIR --output DIR`.

Each raw shard becomes one token shard, and shards are shared out among processes: the bytes do not depend on how many.
Under an MPI launcher the ranks divide the raw shards: `mpirun -n N python -m data_prep.tokenize_shards ...`.
Killed at any moment and started again, it keeps the shards that are finished and makes the others.
"""

import argparse
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer

from data_prep.documents.document_rules import DOCUMENT_RULES, END_TOKEN_RULES, DocumentRules
from data_prep.documents.raw_shards import RawShard, find_raw_shards
from data_prep.encoding.make_encoder import BACKENDS, make_encoder
from data_prep.encoding.tokenizer import end_token_id, load_tokenizer, tokenizer_digest, vocab_size
from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.processes.mpi_ranks import ONE_PROCESS, MpiRanks, find_ranks, ranks_end_together
from data_prep.shards.blocks import BLOCK_BYTES
from data_prep.shards.manifest import Manifest, Shard, make_manifest, read_manifest, write_manifest
from data_prep.tokenizing.output_folder import copy_tokenizer, locked_folder, prepare_folder
from data_prep.tokenizing.shard_job import ShardJob, share_jobs
from data_prep.tokenizing.shard_workers import run_jobs
from data_prep.tokenizing.unfinished import Plan, forget


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
        rules=DocumentRules(
            arguments.text_field, arguments.document_rule, arguments.lines_per_document, arguments.end_token_rule
        ),
        backend=arguments.backend,
        num_workers=arguments.workers,
        max_bad_records=arguments.max_bad_records,
        overwrite=arguments.overwrite,
        ranks=ranks,
    )
    if manifest is not None:  # rank 0 speaks for all
        print(summary(manifest, seconds=time.perf_counter() - start), "->", arguments.output)


def tokenize_shards(
    inputs: list[str | Path],
    *,
    tokenizer: str | Path,
    output: str | Path,
    rules: DocumentRules = DocumentRules(),
    backend: str = "tokenizers",
    num_workers: int = 1,
    max_bad_records: int = 0,
    overwrite: bool = False,
    ranks: MpiRanks = ONE_PROCESS,
) -> Manifest | None:
    """Write the folder `output`: token shards, a copy of the tokenizer and, last of all, the manifest.

    max_bad_records: how many records of all raw shards together may be left out because they cannot be read; the manifest
    names them. A folder that the same call left unfinished is finished. ValueError for any other folder that is not
    empty, or with `overwrite` it is replaced. Collective over `ranks`: each of them makes its share of the token
    shards, rank 0 does the rest and returns the manifest, the others return None.
    """
    run = partial(_run_share, num_workers=num_workers, backend=backend, ranks=ranks)
    if ranks.rank > 0:
        run(None)
        return None
    _check_numbers(num_workers=num_workers, max_bad_records=max_bad_records)
    raw_shards = find_raw_shards(inputs, text_field=rules.text_field)
    loaded = load_tokenizer(tokenizer)
    end_token_id(loaded)
    make_encoder(Path(tokenizer), backend)  # says now what it cannot do
    plan = _make_plan(raw_shards, loaded, rules)
    with locked_folder(output) as output:
        if prepare_folder(output, plan, overwrite=overwrite):
            run([])
            return read_manifest(output)
        copy_tokenizer(tokenizer, output)
        jobs = [
            ShardJob(raw_shard, name, output, plan.digest, rules, max_bad_records)
            for raw_shard, name in zip(raw_shards, plan.shards, strict=True)
        ]
        return _finish(output, plan, run(jobs), loaded, rules, max_bad_records=max_bad_records)


def summary(manifest: Manifest, *, seconds: float) -> str:
    """What was made and how fast; skipped are listed where there are some."""
    num_skipped = sum(len(shard.skipped) for shard in manifest.shards)
    dropped = f", {num_skipped:,} records skipped (manifest.json names them)" if num_skipped else ""
    return (
        f"{manifest.num_documents:,} documents, {manifest.num_tokens:,} tokens in {len(manifest.shards)} shards, "
        f"{manifest.num_tokens / seconds:,.0f} tokens/s{dropped}"
    )


def _check_numbers(*, num_workers: int, max_bad_records: int) -> None:
    if num_workers < 1:
        raise ValueError(f"--workers {num_workers} must be at least 1")
    if max_bad_records < 0:
        raise ValueError(f"--max_bad_records {max_bad_records} must be at least 0")


def _run_share(jobs: list[ShardJob] | None, *, num_workers: int, backend: str, ranks: MpiRanks) -> list[Shard]:
    """Run this rank's share of rank 0's `jobs`; on rank 0 return the shards of all in the order of the jobs.

    Collective over `ranks`: every rank must call it.
    """
    shares = ranks.broadcast(jobs and share_jobs(jobs, ranks.world_size))
    shards = run_jobs(shares[ranks.rank], num_workers=num_workers, backend=backend, ranks=ranks) if shares else []
    ranks.wait()
    gathered = ranks.gather(shards)
    by_name = {shard.name: shard for shards in gathered or () for shard in shards}
    return [by_name[job.name] for job in jobs or ()]


def _make_plan(raw_shards: list[RawShard], tokenizer: Tokenizer, rules: DocumentRules) -> Plan:
    return Plan(
        tokenizer_digest=tokenizer_digest(tokenizer),
        **asdict(rules),
        block_bytes=BLOCK_BYTES,
        # The number keeps the order and tells equal names apart: "00003-en-00000".
        shards=tuple(f"{number:05d}-{raw_shard.name}" for number, raw_shard in enumerate(raw_shards)),
        sources=tuple(raw_shard.source for raw_shard in raw_shards),
    )


def _finish(
    output: Path, plan: Plan, shards: list[Shard], tokenizer: Tokenizer, rules: DocumentRules, *, max_bad_records: int
) -> Manifest:
    """Write the manifest, and only then forget what it was made from."""
    _check_skipped(shards, max_bad_records=max_bad_records)
    manifest = make_manifest(
        shards,
        tokenizer_digest=plan.tokenizer_digest,
        vocab_size=vocab_size(tokenizer),
        end_token_id=end_token_id(tokenizer),
        rules=rules,
    )
    write_manifest(output, manifest)
    forget(output, plan)
    return manifest


def _check_skipped(shards: list[Shard], *, max_bad_records: int) -> None:
    skipped = [f"{shard.source}, {record}" for shard in shards for record in shard.skipped]
    if len(skipped) > max_bad_records:
        raise ValueError(
            f"{len(skipped)} records cannot be read, --max_bad_records {max_bad_records} lets so many be dropped: {'; '.join(skipped[:10])}"
            f"{' ...' if len(skipped) > 10 else ''}; repair them, or repeat the command with --max_bad_records {len(skipped)}"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.tokenize_shards", description=__doc__)
    add = parser.add_argument
    add(
        "--input",
        nargs="+",
        required=True,
        metavar="PATH",
        help="raw shards (txt, jsonl, parquet, tar; gz, xz, zst), folders or quoted globs of them, or hf:NAME",
    )
    add("--tokenizer", required=True, metavar="DIR", help="folder with tokenizer.json")
    add("--output", required=True, metavar="DIR", help="folder to write: new, empty, or begun by the same command")
    add("--workers", type=int, default=1, help="processes; one raw shard each at a time (default: 1)")
    add("--backend", choices=BACKENDS, default="tokenizers", help="library that encodes; the ids are the same")
    add("--text_field", default="text", help="field of .jsonl, column of .parquet that holds the text (default: text)")
    add(
        "--document_rule",
        choices=DOCUMENT_RULES,
        default="auto",
        help="what ends a document (auto: a blank line in .txt, each row of .jsonl and .parquet)",
    )
    add("--lines_per_document", type=int, default=1, metavar="N", help="with --document_rule line (default: 1)")
    add(
        "--end_token_rule",
        choices=END_TOKEN_RULES,
        default="gpt2",
        help="fairseq: each newline becomes the end token, too",
    )
    add(
        "--max_bad_records",
        type=int,
        default=0,
        metavar="N",
        help="skip up to N records that cannot be read (default: 0)",
    )
    add("--overwrite", action="store_true", help="replace the token shards that --output already holds")
    return parser


if __name__ == "__main__":
    sys.exit(main())
