"""Progress of worker processes: what they count, and the bar that their parent shows."""

import sys
from concurrent.futures import FIRST_EXCEPTION, Future, wait

from tqdm import tqdm

from data_prep.processes.worker_pool import CONTEXT

POLL_SECONDS = 0.2


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
        self._check_stopped()
        with self._bytes_read.get_lock():
            self._bytes_read.value += num_bytes

    def add_tokens(self, num_tokens: int) -> None:
        """As add_bytes; a few bytes of a well compressed file hold many tokens."""
        self._check_stopped()
        with self._num_tokens.get_lock():
            self._num_tokens.value += num_tokens

    def _check_stopped(self) -> None:
        if self._is_stopped.value:
            raise InterruptedError("stopped because another shard failed")


def watch(futures: list[Future], progress: Progress, *, total_bytes: int, desc: str, is_shown: bool) -> None:
    """Show progress until all jobs are done; raise the first error at once."""
    with progress_bar(total_bytes, desc=desc, is_shown=is_shown) as bar:
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_EXCEPTION)
            if progress.num_tokens:
                rate = progress.num_tokens / max(bar.format_dict["elapsed"], 1e-9)
                bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
            bar.update(progress.bytes_read - bar.n)
            for future in filter(done.__contains__, futures):  # if several failed, raise the first in the order of jobs
                future.result()


def progress_bar(total_bytes: int, *, desc: str, is_shown: bool) -> tqdm:
    seconds = 0.5 if sys.stderr.isatty() else 30  # few lines in a log file
    options = {"unit": "B", "unit_scale": True, "mininterval": seconds}
    return tqdm(total=total_bytes, desc=desc, disable=not is_shown, **options)
