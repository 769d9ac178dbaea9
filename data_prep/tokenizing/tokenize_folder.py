"""Tokenize raw shards into one folder of token shards, on any number of worker processes and MPI ranks."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.raw_shards import RawShard, find_raw_shards
from data_prep.encoding.end_token import find_end_token
from data_prep.encoding.make_encoder import make_encoder
from data_prep.encoding.tokenizer import load_tokenizer, tokenizer_digest, vocab_size
from data_prep.processes.mpi_ranks import ONE_PROCESS, MpiRanks
from data_prep.shards.block_sums import BLOCK_BYTES
from data_prep.shards.manifest import Manifest, make_manifest, read_manifest, write_manifest
from data_prep.shards.tokenizer_files import TokenizerFile, copy_tokenizer
from data_prep.tokenizing.output_folder import locked_folder, prepare_folder
from data_prep.tokenizing.shard_job import ShardJob, share_jobs
from data_prep.tokenizing.shard_workers import run_jobs
from data_prep.tokenizing.sources import Source, write_sources
from data_prep.tokenizing.unfinished import FinishedShard, FolderSpec, remove_records


def tokenize_folder(
    inputs: list[str | Path],
    *,
    tokenizer: str | Path,
    output: str | Path,
    end_token: str | None = None,
    rules: DocumentRules = DocumentRules(),
    backend: str = "tokenizers",
    num_workers: int = 1,
    max_bad_records: int = 0,
    overwrite: bool = False,
    ranks: MpiRanks = ONE_PROCESS,
) -> Manifest | None:
    """Write the folder `output`: token shards, a copy of the tokenizer and, last of all, the manifest.

    end_token: ends each document; None: the tokenizer's own (data_prep/encoding/end_token.py).
    max_bad_records: maximum number of unreadable records to skip in all raw shards together; the manifest lists them.

    If the same call left the folder unfinished, it is finished. ValueError for any other folder that is not empty;
    `overwrite` replaces its token shards. Collective over `ranks`: every rank writes its share of the token shards.
    Rank 0 does the rest and returns the manifest; the other ranks return None.
    """
    run = partial(_run_share, num_workers=num_workers, backend=backend, ranks=ranks)
    if ranks.rank > 0:
        run(None)
        return None
    _check_numbers(num_workers=num_workers, max_bad_records=max_bad_records)
    raw_shards = find_raw_shards(inputs, text_field=rules.text_field)
    loaded = load_tokenizer(tokenizer)
    end_token = find_end_token(tokenizer, loaded, end_token)
    make_encoder(Path(tokenizer), backend)  # raises now what the workers would raise later
    spec = _folder_spec(raw_shards, loaded, end_token, rules)
    with locked_folder(output) as output:
        if prepare_folder(output, spec, overwrite=overwrite):
            run([])
            return read_manifest(output)
        tokenizer_files = copy_tokenizer(tokenizer, output)
        jobs = [
            ShardJob((raw_shard,), name, output, spec.digest, loaded.token_to_id(end_token), rules, max_bad_records)
            for raw_shard, name in zip(raw_shards, spec.shards, strict=True)
        ]
        finished = run(jobs)
        _check_skipped(_sources(finished), max_bad_records=max_bad_records)
        return _finish(output, spec, finished, loaded, rules, tokenizer_files)


def summary(manifest: Manifest, *, seconds: float) -> str:
    """Return one line: the content of the folder, and the writing speed."""
    return (
        f"{manifest.num_documents:,} documents, {manifest.num_tokens:,} tokens in {len(manifest.shards)} shards, "
        f"{manifest.num_tokens / seconds:,.0f} tokens/s"
    )


def _check_numbers(*, num_workers: int, max_bad_records: int) -> None:
    if num_workers < 1:
        raise ValueError(f"--workers {num_workers} must be at least 1")
    if max_bad_records < 0:
        raise ValueError(f"--max_bad_records {max_bad_records} must be at least 0")


def _run_share(jobs: list[ShardJob] | None, *, num_workers: int, backend: str, ranks: MpiRanks) -> list[FinishedShard]:
    """Run this rank's share of rank 0's `jobs`; on rank 0, return the shards of all ranks in the order of `jobs`.

    Collective over `ranks`: every rank must call it.
    """
    shares = ranks.broadcast(jobs and share_jobs(jobs, ranks.world_size))
    shards = run_jobs(shares[ranks.rank], num_workers=num_workers, backend=backend, ranks=ranks) if shares else []
    ranks.wait()
    gathered = ranks.gather(shards)
    by_name = {finished.shard.name: finished for share in gathered or () for finished in share}
    return [by_name[job.name] for job in jobs or ()]


def _folder_spec(raw_shards: list[RawShard], tokenizer: Tokenizer, end_token: str, rules: DocumentRules) -> FolderSpec:
    return FolderSpec(
        tokenizer_digest=tokenizer_digest(tokenizer),
        end_token=end_token,
        **asdict(rules),
        block_bytes=BLOCK_BYTES,
        # The number keeps the order and tells equal names apart: "00003-en-00000".
        shards=tuple(f"{number:05d}-{raw_shard.name}" for number, raw_shard in enumerate(raw_shards)),
        sources=tuple(raw_shard.source for raw_shard in raw_shards),
    )


def _finish(
    output: Path,
    spec: FolderSpec,
    finished: list[FinishedShard],
    tokenizer: Tokenizer,
    rules: DocumentRules,
    tokenizer_files: tuple[TokenizerFile, ...],
) -> Manifest:
    """Write sources.jsonl and the manifest, and only then remove the records that they were made from."""
    manifest = make_manifest(
        [each.shard for each in finished],
        tokenizer_digest=spec.tokenizer_digest,
        vocab_size=vocab_size(tokenizer),
        end_token=spec.end_token,
        end_token_id=tokenizer.token_to_id(spec.end_token),
        rules=rules,
        tokenizer_files=tokenizer_files,
        sources_xxh3=write_sources(output, _sources(finished)),
    )
    write_manifest(output, manifest)
    remove_records(output, spec)
    return manifest


def _sources(finished: list[FinishedShard]) -> list[Source]:
    return [source for each in finished for source in each.sources]


def _check_skipped(sources: list[Source], *, max_bad_records: int) -> None:
    skipped = [f"{source.source}, {record}" for source in sources for record in source.skipped]
    if len(skipped) > max_bad_records:
        listed = "; ".join(skipped[:10]) + (" ..." if len(skipped) > 10 else "")
        raise ValueError(
            f"{len(skipped)} records cannot be read, but --max_bad_records is {max_bad_records}: {listed}; "
            f"repair them, or repeat the command with --max_bad_records {len(skipped)}"
        )
