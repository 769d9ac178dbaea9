"""HostCopy: a rank's training state in host memory, copied there once per save and written while training goes on."""

from dataclasses import replace

import torch

from train.checkpoint.files.stored_state import StateShard


class HostCopy:
    """Memory for one copy, allocated at the first save and used again by every later one.

    For a GPU, the memory is pinned, nothing is copied on the device, and the copy runs on a stream of its own. The
    training's stream waits for it, since the next update overwrites the state, but the host does not.
    """

    def __init__(self):
        self._memory = torch.empty(0)
        self._stream: torch.cuda.Stream | None = None

    def take(self, shards: list[StateShard]) -> list[StateShard]:
        """Copy the shards over the earlier copy, which must have been written. wait() before reading them."""
        sizes = [len(shard.values) for shard in shards]
        is_on_gpu = any(shard.values.is_cuda for shard in shards)
        if len(self._memory) != sum(sizes):
            self._memory = torch.empty(sum(sizes), pin_memory=is_on_gpu)
        copies = [replace(s, values=v) for s, v in zip(shards, self._memory.split(sizes), strict=True)]
        if is_on_gpu:
            self._copy_aside(shards, copies)
        else:
            _copy(shards, copies)
        return copies

    def wait(self) -> None:
        """Return when the copy is complete. Any thread may call it."""
        if self._stream:
            self._stream.synchronize()

    def _copy_aside(self, shards: list[StateShard], copies: list[StateShard]) -> None:
        self._stream = self._stream or torch.cuda.Stream()
        training = torch.cuda.current_stream()
        self._stream.wait_stream(training)  # for the update that made this state
        with torch.cuda.stream(self._stream):
            _copy(shards, copies)
        training.wait_stream(self._stream)


def _copy(shards: list[StateShard], copies: list[StateShard]) -> None:
    for shard, copy in zip(shards, copies, strict=True):
        copy.values.copy_(shard.values, non_blocking=True)
