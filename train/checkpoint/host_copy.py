"""HostCopy: a rank's training state in host memory, copied there once per save and written while training goes on."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate

import torch

from train.checkpoint.files.stored_state import StateShard

# Torch rounds pinned memory up to a power of two: in blocks of 2**28 * 4 bytes = 1 GiB, only the last one is rounded.
BLOCK = 1 << 28  # elements


class HostCopy:
    """Memory for one copy, allocated at the first save and used again by every later one.

    For a GPU, the memory is pinned, nothing is copied on the device, and the copy runs on a stream of its own. The
    training's stream waits for it, since the next update overwrites the state, but the host does not.
    """

    def __init__(self):
        self._blocks: list[torch.Tensor] = []
        self._stream: torch.cuda.Stream | None = None

    def take(self, shards: list[StateShard]) -> list[StateShard]:
        """Copy the shards over the earlier copy, which must have been written. wait() before reading them.

        A shard that reaches from one block of the memory to the next becomes two.
        """
        shards = list(_cut_at_blocks(shards))
        starts = list(accumulate((len(shard.values) for shard in shards), initial=0))
        is_on_gpu = any(shard.values.is_cuda for shard in shards)
        self._allocate(starts.pop(), pinned=is_on_gpu)
        copies = [
            replace(shard, values=self._place(start, len(shard.values)))
            for shard, start in zip(shards, starts, strict=True)
        ]
        if is_on_gpu:
            self._copy_aside(shards, copies)
        else:
            _copy(shards, copies)
        return copies

    def wait(self) -> None:
        """Return when the copy is complete. Any thread may call it."""
        if self._stream:
            self._stream.synchronize()

    def _allocate(self, size: int, *, pinned: bool) -> None:
        sizes = [min(BLOCK, size - begin) for begin in range(0, size, BLOCK)]
        if sizes != [len(block) for block in self._blocks]:
            self._blocks = []  # the old memory goes before the new one comes
            self._blocks = [torch.empty(of_block, pin_memory=pinned) for of_block in sizes]

    def _place(self, start: int, size: int) -> torch.Tensor:
        return self._blocks[start // BLOCK].narrow(0, start % BLOCK, size)

    def _copy_aside(self, shards: list[StateShard], copies: list[StateShard]) -> None:
        self._stream = self._stream or torch.cuda.Stream()
        training = torch.cuda.current_stream()
        self._stream.wait_stream(training)  # for the update that made this state
        with torch.cuda.stream(self._stream):
            _copy(shards, copies)
        training.wait_stream(self._stream)


def _cut_at_blocks(shards: list[StateShard]) -> Iterator[StateShard]:
    """The same elements in shards that do not cross a multiple of BLOCK, counted over all of them."""
    room = BLOCK
    for shard in shards:
        begin = 0
        while begin < len(shard.values):
            values = shard.values[begin : begin + room]
            yield replace(shard, offset=shard.offset + begin, values=values)
            begin, room = begin + len(values), room - len(values) or BLOCK


def _copy(shards: list[StateShard], copies: list[StateShard]) -> None:
    for shard, copy in zip(shards, copies, strict=True):
        copy.values.copy_(shard.values, non_blocking=True)
