"""Run shard jobs in worker processes, one shard per process at a time, under one progress bar."""

import os
import sys
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from pathlib import Path

from tqdm import tqdm

from data_prep.processes.mpi_ranks import ONE_PROCESS, MpiRanks
from data_prep.processes.worker_pool import CONTEXT, worker_pool
from data_prep.shards.tokenizer_files import TOKENIZER_FOLDER
from data_prep.tokenizing.shard_job import ShardJob, ShardTokenizer, finish_shard
from data_prep.tokenizing.unfinished import FinishedShard

POLL_SECONDS = 0.2


def run_jobs(
    jobs: list[ShardJob], *, num_workers: int, backend: str, ranks: MpiRanks = ONE_PROCESS
) -> list[FinishedShard]:
    """Return the finished shards in the order of `jobs`; the first error stops the other jobs and is raised."""
    if not jobs:  # more ranks than raw shards
        return []
    num_workers = min(num_workers, len(jobs))
    tokenizer = jobs[0].output / TOKENIZER_FOLDER
    progress = Progress()
    num_threads = max(1, (os.cpu_count() or 1) // (num_workers * ranks.num_on_host))
    with worker_pool(num_workers, _start_worker, tokenizer, backend, num_threads, progress) as pool:
        futures = [pool.submit(_run_job, job) for job in jobs]
        try:
            _watch(futures, progress, total_bytes=sum(job.num_bytes for job in jobs), rank=ranks.rank)
        except BaseException:
            progress.stop()
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


class Progress:
    """Counters that workers and their parent share.

    The parent takes no lock: a worker that is killed while it holds one would never release it.
    """

    def __init__(self):
        self._bytes_read = CONTEXT.Value("q", 0)
        self._num_tokens = CONTEXT.Value("q", 0)
        self._is_stopped = CONTEXT.RawValue("b", 0)

    @property
    def bytes_read(self) -> int:
        return self._bytes_read.get_obj().value

    @property
    def num_tokens(self) -> int:
        return self._num_tokens.get_obj().value

    def stop(self) -> None:
        self._is_stopped.value = 1

    def add_bytes(self, num_bytes: int) -> None:
        """Count bytes read; InterruptedError if another job has failed."""
        if self._is_stopped.value:
            raise InterruptedError("stopped because another shard failed")
        with self._bytes_read.get_lock():
            self._bytes_read.value += num_bytes

    def add_tokens(self, num_tokens: int) -> None:
        with self._num_tokens.get_lock():
            self._num_tokens.value += num_tokens


def _watch(futures: list[Future], progress: Progress, *, total_bytes: int, rank: int) -> None:
    """Show progress, only of rank 0's share, until all jobs are done; raise the first error at once."""
    seconds = 0.5 if sys.stderr.isatty() else 30  # few lines in a log file
    options = {"desc": "tokenize", "mininterval": seconds, "disable": rank > 0}
    with tqdm(total=total_bytes, unit="B", unit_scale=True, **options) as bar:
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_EXCEPTION)
            rate = progress.num_tokens / max(bar.format_dict["elapsed"], 1e-9)
            bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
            bar.update(progress.bytes_read - bar.n)
            for future in filter(done.__contains__, futures):  # if several failed, raise the first in the order of jobs
                future.result()


# The state of a worker process between jobs.
_tokenizer: ShardTokenizer
_progress: Progress


def _start_worker(tokenizer: Path, backend: str, num_threads: int, progress: Progress) -> None:
    global _tokenizer, _progress
    os.environ["RAYON_NUM_THREADS"] = str(num_threads)
    _tokenizer = ShardTokenizer(tokenizer, backend=backend, num_threads=num_threads)
    _progress = progress


def _run_job(job: ShardJob) -> FinishedShard:
    return finish_shard(job, _tokenizer, on_read=_progress.add_bytes, on_tokens=_progress.add_tokens)
