"""Apply a function to many items, on the worker processes of all ranks, under one progress bar."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from data_prep.processes.mpi_ranks import ONE_PROCESS, MpiRanks, divide
from data_prep.processes.progress import Progress, progress_bar, watch
from data_prep.processes.worker_pool import worker_pool

Item, Result = TypeVar("Item"), TypeVar("Result")
OnRead = Callable[[int], object]
BYTES_PER_WORKER = 2**27  # which one process reads while another starts


def parallel_map(
    function: Callable[[Item, OnRead], Result],
    items: Sequence[Item],
    sizes: list[int],
    *,
    desc: str,
    num_workers: int = 1,
    ranks: MpiRanks = ONE_PROCESS,
) -> list[Result]:
    """Return function(item, on_read) of every item in order on rank 0, nothing on other ranks.

    function: a function of a module, or a partial of one; on_read counts bytes. sizes: bytes to read per item.
    Collective over `ranks`: every rank must call it with the same items. The bar shows rank 0's share.
    """
    share = divide(sizes, ranks.world_size)[ranks.rank]
    options = {"total_bytes": sum(sizes[number] for number in share), "desc": desc, "is_shown": ranks.rank == 0}
    results = _map_here(function, [items[number] for number in share], num_workers=num_workers, **options)
    ranks.wait()
    gathered = ranks.gather(dict(zip(share, results, strict=True)))
    by_number = {number: result for share in gathered or () for number, result in share.items()}
    return [by_number[number] for number in sorted(by_number)]


def _map_here(
    function: Callable[[Item, OnRead], Result],
    items: list[Item],
    *,
    num_workers: int,
    total_bytes: int,
    desc: str,
    is_shown: bool,
) -> list[Result]:
    num_workers = min(num_workers, len(items), 1 + total_bytes // BYTES_PER_WORKER)
    if num_workers <= 1:
        with progress_bar(total_bytes, desc=desc, is_shown=is_shown) as bar:
            return [function(item, bar.update) for item in items]
    progress = Progress()
    with worker_pool(num_workers, _start_worker, function, progress) as pool:
        futures = [pool.submit(_call, item) for item in items]
        try:
            watch(futures, progress, total_bytes=total_bytes, desc=desc, is_shown=is_shown)
        except BaseException:
            progress.stop()
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


# The state of a worker process between items.
_function: Callable
_progress: Progress


def _start_worker(function: Callable, progress: Progress) -> None:
    global _function, _progress
    _function, _progress = function, progress


def _call(item: object) -> object:
    return _function(item, _progress.add_bytes)
