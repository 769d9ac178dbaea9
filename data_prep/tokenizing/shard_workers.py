"""Run shard jobs in worker processes, one shard per process at a time, under one progress bar."""

import os
from pathlib import Path

from data_prep.processes.mpi_ranks import ONE_PROCESS, MpiRanks
from data_prep.processes.progress import Progress, watch
from data_prep.processes.worker_pool import worker_pool
from data_prep.shards.tokenizer_files import TOKENIZER_FOLDER
from data_prep.tokenizing.shard_job import FailedShard, ShardJob, ShardTokenizer, finish_shard
from data_prep.tokenizing.unfinished import FinishedShard


def run_jobs(
    jobs: list[ShardJob], *, num_workers: int, backend: str, ranks: MpiRanks = ONE_PROCESS
) -> list[FinishedShard | FailedShard]:
    """Return what became of each of `jobs`, in their order; the first error stops the other jobs and is raised."""
    if not jobs:  # more ranks than token shards
        return []
    num_workers = min(num_workers, len(jobs))
    tokenizer = jobs[0].output / TOKENIZER_FOLDER
    progress = Progress()
    num_threads = max(1, (os.cpu_count() or 1) // (num_workers * ranks.num_on_host))
    total_bytes = sum(job.num_bytes for job in jobs)
    with worker_pool(num_workers, _start_worker, tokenizer, backend, num_threads, progress) as pool:
        futures = [pool.submit(_run_job, job) for job in jobs]
        try:
            watch(futures, progress, total_bytes=total_bytes, desc="tokenize", is_shown=ranks.rank == 0)
        except BaseException:
            progress.stop()
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


# The state of a worker process between jobs.
_tokenizer: ShardTokenizer
_progress: Progress


def _start_worker(tokenizer: Path, backend: str, num_threads: int, progress: Progress) -> None:
    global _tokenizer, _progress
    os.environ["RAYON_NUM_THREADS"] = str(num_threads)
    _tokenizer = ShardTokenizer(tokenizer, backend=backend, num_threads=num_threads)
    _progress = progress


def _run_job(job: ShardJob) -> FinishedShard | FailedShard:
    return finish_shard(job, _tokenizer, on_read=_progress.add_bytes, on_tokens=_progress.add_tokens)
