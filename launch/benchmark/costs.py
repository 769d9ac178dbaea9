"""The cost of a variant besides its time: peak memory, bytes sent to other ranks, and waits for the GPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile

# ---- memory ----


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """The highest sum of live allocations during run(), without the tensors that were alive before it.

    On CUDA, the counter of the caching allocator. The CPU allocator keeps no peak, so PyTorch's profiler reports every
    allocation and release of torch's CPU allocator, temporaries inside operators included; releases of older memory
    do not count. Buffers of MKL, oneDNN and gloo are not torch's, and are not counted.
    """
    if device.type == "cuda":
        return _cuda_peak_bytes(run, device)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    return highest_sum(_memory_changes(profiler))


def _cuda_peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _memory_changes(profiler: profile) -> list[int]:
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]


def highest_sum(changes: list[int]) -> int:
    """The highest running sum of changes, at least 0."""
    live = peak = 0
    for change in changes:
        live += change
        peak = max(peak, live)
    return peak


# ---- traffic ----


@dataclass
class Traffic:
    """The all-to-all traffic that this rank sends."""

    num_bytes: int = 0  # sent to other ranks, without the part that a rank keeps
    num_calls: int = 0  # of collectives


@contextmanager
def count_traffic() -> Iterator[Traffic]:
    """Count within the block, by wrapping torch.distributed, which deepspeed.comm calls too."""
    traffic, single, many = Traffic(), dist.all_to_all_single, dist.all_to_all

    def counting_single(
        output, input, output_split_sizes=None, input_split_sizes=None, group=None, *arguments, **options
    ):
        traffic.num_calls += 1
        traffic.num_bytes += sent_bytes(input, input_split_sizes, group)
        return single(output, input, output_split_sizes, input_split_sizes, group, *arguments, **options)

    def counting_many(output_tensor_list, input_tensor_list, group=None, *arguments, **options):
        traffic.num_calls += 1
        own = dist.get_rank(group)
        traffic.num_bytes += sum(t.nbytes for rank, t in enumerate(input_tensor_list) if rank != own)
        return many(output_tensor_list, input_tensor_list, group, *arguments, **options)

    dist.all_to_all_single, dist.all_to_all = counting_single, counting_many
    try:
        yield traffic
    finally:
        dist.all_to_all_single, dist.all_to_all = single, many


def sent_bytes(tensor: torch.Tensor, input_splits: list[int] | None, group) -> int:
    """Bytes of the tensor's rows that go to other ranks of the group; without splits, each rank gets an equal share."""
    num_ranks, own = dist.get_world_size(group), dist.get_rank(group)
    sizes = list(input_splits) if input_splits else [len(tensor) // num_ranks] * num_ranks
    row_bytes = tensor[:1].nbytes
    return sum(size for rank, size in enumerate(sizes) if rank != own) * row_bytes


# ---- waits for the GPU ----


def first_synchronization(run: Callable[[], object], device: torch.device) -> str | None:
    """Where run() first makes the host wait for the GPU, "" if it never does; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""
