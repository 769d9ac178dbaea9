"""The peak of memory that a computation allocates beyond what was there before it."""

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """The highest sum of live allocations while run() runs, tensors alive before it not counted.

    On CUDA the caching allocator's own counter. On the CPU, whose allocator keeps no peak, PyTorch's profiler reports
    every allocation and release of torch's CPU allocator, temporaries inside operators included; the releases of
    older memory do not count. Buffers of MKL, oneDNN and gloo are not torch's and are not seen.
    """
    if device.type == "cuda":
        return _cuda_peak_bytes(run, device)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    return peak_of(_memory_changes(profiler))


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


def peak_of(changes: list[int]) -> int:
    """The highest running sum of changes, at least 0."""
    live = peak = 0
    for change in changes:
        live += change
        peak = max(peak, live)
    return peak
