"""Count every token of a mixture: processes and MPI ranks divide the tokens, and each holds one array of counts."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Protocol

import numpy as np
from tqdm import tqdm

from data_prep.processes.mpi_ranks import ONE_PROCESS, MpiRanks
from data_prep.processes.worker_pool import CONTEXT, worker_pool
from data_prep.shards.contexts import read_contexts
from data_prep.shards.mixture import Mixture, scaled
from data_prep.storage.memory import check_memory

SHARES_PER_WORKER = 16  # so that processes finish at about the same time
TOKENS_PER_WORKER = 2**30  # counted in twice the time in which a worker starts: fewer tokens get fewer workers
SCALED_AT_ONCE = 2**20  # counts; exact products are Python's integers, which take 36 bytes each


class Counted(Protocol):
    """What is counted: every token, or some of them, belong to one of `num_cells` cells."""

    num_cells: int
    context_length: int  # tokens per context; 0: each part is one context
    cure: str  # what to do if the cells do not fit into memory

    def cells(self, tokens: np.ndarray, lead: int) -> np.ndarray:
        """Return the cells of tokens[lead:], int64; those before `lead` were counted with another piece."""


@dataclass(frozen=True)
class Share:
    """Share `number` of `num_shares` equal ones of a part's tokens."""

    part: int
    number: int
    num_shares: int


def count_mixture(
    mixture: Mixture, counted: Counted, *, num_workers: int = 1, ranks: MpiRanks = ONE_PROCESS
) -> np.ndarray:
    """Return int64 [num_cells]: what each part holds times its epochs, rounded, and summed.

    Collective over `ranks`: each counts its shares with at most `num_workers` processes, and rank 0 alone gets the sum.
    All ranks count one part after the other and round its sum: the result does not depend on the number of processes.
    """
    num_tokens_of_rank = sum(stream.num_tokens for stream in mixture.streams) // ranks.world_size
    num_workers = min(num_workers, 1 + num_tokens_of_rank // TOKENS_PER_WORKER)
    _check(counted, num_workers, num_on_host=ranks.num_on_host)
    total_C = np.zeros(counted.num_cells, dtype=np.int64)
    num_shares = num_workers * SHARES_PER_WORKER
    numbers = range(ranks.rank * num_shares, (ranks.rank + 1) * num_shares)
    with _counters(mixture, counted, num_workers) as (counts_WC, count), _bar(num_tokens_of_rank, ranks) as bar:
        for part, epochs in enumerate(mixture.epochs):
            for num_tokens in count([Share(part, number, ranks.world_size * num_shares) for number in numbers]):
                bar.update(num_tokens)
            for of_worker_C in counts_WC[1:]:
                counts_WC[0] += of_worker_C
            ranks.wait()
            _add_scaled(total_C, ranks.sum(counts_WC[0]), epochs)
            counts_WC[:] = 0
    return total_C


@contextmanager
def _counters(mixture: Mixture, counted: Counted, num_workers: int) -> Iterator[tuple[np.ndarray, Callable]]:
    """Yield counts, int64 [num_workers, num_cells], and the function that adds shares to them.

    It yields the number of tokens of each share. Worker processes open the mixture once and then receive shares alone.
    """
    if num_workers == 1:
        counts_WC = np.zeros((1, counted.num_cells), dtype=np.int64)
        yield counts_WC, partial(map, partial(_count_share, mixture, counted, counts_WC[0]))
        return
    counts = CONTEXT.RawArray("q", num_workers * counted.num_cells)  # shared: each process adds to its own row
    counts_WC = np.frombuffer(counts, dtype=np.int64).reshape(num_workers, -1)
    with worker_pool(num_workers, _start_worker, mixture, counted, counts, CONTEXT.Value("i", 0)) as pool:
        yield counts_WC, partial(pool.map, _count_share_in_worker)


def _count_share(mixture: Mixture, counted: Counted, counts_C: np.ndarray, share: Share) -> int:
    """Add a share to `counts_C` and return its number of tokens; ValueError if a block of it is damaged."""
    num_tokens, stream = 0, mixture.streams[share.part]
    options = {"share": share.number, "num_shares": share.num_shares, "context_length": counted.context_length}
    for tokens, lead in read_contexts(stream, **options):
        cells = counted.cells(tokens, lead)
        if len(counts_C) > len(cells):  # bincount would make an array as long as counts_C for each piece
            np.add.at(counts_C, cells, 1)
        else:
            counts_C += np.bincount(cells, minlength=len(counts_C))
        num_tokens += len(tokens) - lead
    return num_tokens


_count_here: Callable[[Share], int]  # of this worker process


def _start_worker(mixture: Mixture, counted: Counted, counts, num_started) -> None:
    global _count_here
    with num_started.get_lock():
        row = num_started.value
        num_started.value += 1
    counts_WC = np.frombuffer(counts, dtype=np.int64).reshape(-1, counted.num_cells)
    _count_here = partial(_count_share, mixture, counted, counts_WC[row])


def _count_share_in_worker(share: Share) -> int:
    return _count_here(share)


def _add_scaled(total_C: np.ndarray, part_C: np.ndarray, epochs: Fraction) -> None:
    for start in range(0, len(part_C), SCALED_AT_ONCE):
        total_C[start : start + SCALED_AT_ONCE] += scaled(part_C[start : start + SCALED_AT_ONCE], epochs)


def check_context_length(context_length: int) -> None:
    """Raise ValueError if a context has fewer than 0 tokens."""
    if context_length < 0:
        raise ValueError(f"--context_length {context_length} must be at least 0; 0 is one long context")


def _bar(num_tokens: int, ranks: MpiRanks) -> tqdm:
    """Return a bar of rank 0's tokens, which appears only if counting takes longer than a moment."""
    seconds = 0.5 if sys.stderr.isatty() else 30  # few lines in a log file
    options = {"mininterval": seconds, "delay": seconds, "leave": False, "disable": ranks.rank > 0}
    return tqdm(total=num_tokens, desc="count", unit=" tokens", unit_scale=True, **options)


def _check(counted: Counted, num_workers: int, *, num_on_host: int) -> None:
    if num_workers < 1:
        raise ValueError(f"--workers {num_workers} must be at least 1")
    check_context_length(counted.context_length)
    # each worker's counts, their sum over ranks, and the sum over parts, 8 bytes each
    num_bytes = 8 * counted.num_cells * (num_workers + 2) * num_on_host
    purpose = f"counting {counted.num_cells:,} cells with {num_workers * num_on_host} processes"
    check_memory(num_bytes, purpose=purpose, cure=counted.cure)
