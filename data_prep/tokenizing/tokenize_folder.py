"""Tokenize raw shards into one folder of token shards, on any number of worker processes and MPI ranks."""

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.raw_shards import find_raw_shards
from data_prep.encoding.end_token import find_end_token
from data_prep.encoding.make_encoder import make_encoder
from data_prep.encoding.tokenizer import load_tokenizer, tokenizer_digest, vocab_size
from data_prep.processes.mpi_ranks import ONE_PROCESS, MpiRanks
from data_prep.processes.worker_pool import resolve_workers
from data_prep.shards.block_sums import BLOCK_BYTES
from data_prep.shards.manifest import Manifest, make_manifest, read_manifest, token_dtype, write_manifest
from data_prep.shards.tokenizer_files import TOKENIZER_FOLDER, TokenizerFile, check_tokenizer_files, copy_tokenizer
from data_prep.storage.free_space import check_free_space
from data_prep.tokenizing.bad_records import check_bad_records, limit_per_raw_shard
from data_prep.tokenizing.folder_plan import PlannedShard, expected_bytes, plan_shards
from data_prep.tokenizing.output_folder import FolderState, locked_folder, prepare_folder, remove_temporary
from data_prep.tokenizing.shard_job import FailedShard, ShardJob, share_jobs
from data_prep.tokenizing.shard_workers import run_jobs
from data_prep.tokenizing.sources import write_sources
from data_prep.tokenizing.unfinished import START_OVER, FinishedShard, FolderSpec, is_recorded, remove_records


def tokenize_folder(
    inputs: list[str | Path],
    *,
    tokenizer: str | Path,
    output: str | Path,
    leave_out: str | Path | None = None,
    end_token: str | None = None,
    rules: DocumentRules = DocumentRules(),
    backend: str = "tokenizers",
    num_workers: int | None = 1,
    max_bad_records: int | float = 0,
    shard_bytes: int | None = None,
    extend: bool = False,
    keep_going: bool = False,
    overwrite: bool = False,
    ranks: MpiRanks = ONE_PROCESS,
) -> Manifest | None:
    """Write the folder `output`: token shards, a copy of the tokenizer and, last of all, the manifest.

    leave_out: folder that is not read; None: `output`. end_token: ends each document; None: the tokenizer's own.
    num_workers: per rank; None: one per core. max_bad_records: maximum number of unreadable records to skip in all
    raw shards together, or their share of all documents if below 1; sources.jsonl lists them. shard_bytes: see
    plan_shards. extend: append raw shards of which the folder has no tokens yet, if it was begun or finished.
    keep_going: a raw shard that cannot be read fails its token shard alone; the error at the end names all of them.

    If a call left the folder unfinished, it is finished; if nothing is left to do, nothing is written. ValueError for
    another folder that is not empty, and for other text; `overwrite` replaces its token shards. Collective over
    `ranks`: every rank writes its share of the token shards. Rank 0 does the rest and returns the manifest; the other
    ranks return None.
    """
    num_workers = resolve_workers(num_workers, num_on_host=ranks.num_on_host)
    run = partial(_run_share, num_workers=num_workers, backend=backend, ranks=ranks)
    if ranks.rank > 0:
        run(None)
        return None
    _check_arguments(max_bad_records=max_bad_records, shard_bytes=shard_bytes)
    left_out = Path(leave_out or output)
    raw_shards = find_raw_shards(inputs, text_field=rules.text_field, include=rules.include, leave_out=left_out)
    make_encoder(Path(tokenizer), backend)  # raises now what the workers would raise later
    loaded, spec = _load(tokenizer, end_token, rules)
    token_size = 2 if token_dtype(vocab_size(loaded)) == "uint16" else 4
    make_plan = partial(plan_shards, rules=rules, token_size=token_size, shard_bytes=shard_bytes)
    with locked_folder(output) as output:
        state = prepare_folder(output, spec, raw_shards, make_plan, extend=extend, overwrite=overwrite)
        if not state.missing:
            run([])
            return read_manifest(output)
        _check_space(output, state.missing, token_size=token_size)
        tokenizer_files = _checked_tokenizer(output, spec) if state.finished else copy_tokenizer(tokenizer, output)
        jobs = _make_jobs(output, state, spec, loaded, max_bad_records=max_bad_records, keep_going=keep_going)
        finished = _check_finished(state, run(jobs), max_bad_records)
        return _finish(output, spec, finished, loaded, tokenizer_files)


def _load(tokenizer: str | Path, end_token: str | None, rules: DocumentRules) -> tuple[Tokenizer, FolderSpec]:
    loaded = load_tokenizer(tokenizer)
    end_token = find_end_token(tokenizer, loaded, end_token)
    return loaded, FolderSpec(tokenizer_digest(loaded), end_token, **asdict(rules), block_bytes=BLOCK_BYTES)


def _check_arguments(*, max_bad_records: int | float, shard_bytes: int | None) -> None:
    if max_bad_records < 0:
        raise ValueError(f"--max_bad_records {max_bad_records} must be at least 0")
    if shard_bytes is not None and shard_bytes < 1:
        raise ValueError(f"--shard_bytes {shard_bytes} must be at least 1")


def _check_space(output: Path, missing: list[PlannedShard], *, token_size: int) -> None:
    """Warn or raise if the token shards that are still to be written do not fit on the disk."""
    to_write = [planned for planned in missing if not is_recorded(output, planned.name)]
    raw_shards = [raw_shard for planned in to_write for raw_shard in planned.raw_shards]
    warning = check_free_space(output, sum(expected_bytes(raw_shard, token_size) for raw_shard in raw_shards))
    if warning:
        print(f"warning: {warning}", file=sys.stderr)


def _checked_tokenizer(output: Path, spec: FolderSpec) -> tuple[TokenizerFile, ...]:
    """Return the tokenizer's files of a finished folder, which stay while it is extended: training may be reading them.

    ValueError if they have changed, or are not those of the tokenizer that this command was given.
    """
    tokenizer_files = read_manifest(output).tokenizer_files
    check_tokenizer_files(output, tokenizer_files)
    found = tokenizer_digest(load_tokenizer(output / TOKENIZER_FOLDER))
    if found != spec.tokenizer_digest:
        raise ValueError(
            f"{output / TOKENIZER_FOLDER} has digest {found}, but the token shards are of {spec.tokenizer_digest}; "
            f"{START_OVER}"
        )
    return tokenizer_files


def _make_jobs(
    output: Path,
    state: FolderState,
    spec: FolderSpec,
    tokenizer: Tokenizer,
    *,
    max_bad_records: int | float,
    keep_going: bool,
) -> list[ShardJob]:
    limit = limit_per_raw_shard(max_bad_records, [each for planned in state.plan for each in planned.raw_shards])
    end_id = tokenizer.token_to_id(spec.end_token)
    return [
        ShardJob(
            planned.raw_shards,
            planned.name,
            output,
            spec.digest,
            end_id,
            spec.rules,
            max_bad_records=limit,
            max_bad_option=max_bad_records,
            keep_going=keep_going,
        )
        for planned in state.missing
    ]


def _run_share(
    jobs: list[ShardJob] | None, *, num_workers: int, backend: str, ranks: MpiRanks
) -> dict[str, FinishedShard | FailedShard]:
    """Run this rank's share of rank 0's `jobs`; on rank 0, return what became of all of them, by name.

    Collective over `ranks`: every rank must call it.
    """
    shares = ranks.broadcast(jobs and share_jobs(jobs, ranks.world_size))
    done = run_jobs(shares[ranks.rank], num_workers=num_workers, backend=backend, ranks=ranks) if shares else []
    ranks.wait()
    gathered = ranks.gather({each.name: each for each in done})
    return {name: each for share in gathered or () for name, each in share.items()}


def _check_finished(
    state: FolderState, done: dict[str, FinishedShard | FailedShard], max_bad_records: int | float
) -> list[FinishedShard]:
    """Return all token shards in the order of the plan; ValueError if one failed, or too many records are bad."""
    failed = [each for each in done.values() if isinstance(each, FailedShard)]
    if failed:
        problems = [problem for each in failed for problem in each.problems]
        raise ValueError(
            f"{len(problems)} raw shards cannot be read, so {len(failed)} of {len(state.plan)} token shards are "
            "missing; repair these files, and repeat the command, which keeps the other token shards:\n"
            + "\n".join(problems)
        )
    finished = [(state.finished | done)[planned.name] for planned in state.plan]
    check_bad_records([source for each in finished for source in each.sources], max_bad_records)
    return finished


def _finish(
    output: Path,
    spec: FolderSpec,
    finished: list[FinishedShard],
    tokenizer: Tokenizer,
    tokenizer_files: tuple[TokenizerFile, ...],
) -> Manifest:
    """Write sources.jsonl and the manifest, and only then remove the records that they were made from."""
    manifest = make_manifest(
        [each.shard for each in finished],
        tokenizer_digest=spec.tokenizer_digest,
        vocab_size=vocab_size(tokenizer),
        end_token=spec.end_token,
        end_token_id=tokenizer.token_to_id(spec.end_token),
        rules=spec.rules,
        tokenizer_files=tokenizer_files,
        sources=write_sources(output, [source for each in finished for source in each.sources]),
    )
    remove_temporary(output)  # of workers that outlived a killed command for a moment
    write_manifest(output, manifest)
    remove_records(output, [each.name for each in finished])
    return manifest
