"""Agreement: small collectives on hosts by which all ranks learn the same values and make the same decisions."""

from typing import Protocol

import numpy as np
import torch
import torch.distributed


class Group(Protocol):
    """Ranks that act together: the number of this rank among them, and a way to share their values."""

    rank: int
    size: int

    def gather(self, value) -> list:
        """The values of all ranks, in the order of the ranks. Collective over the group: every rank must call it."""


class AllRanks:
    """The Group of all ranks, over the process group of the training."""

    _group = None

    @property
    def rank(self) -> int:
        return torch.distributed.get_rank()

    @property
    def size(self) -> int:
        return torch.distributed.get_world_size()

    def gather(self, value) -> list:
        return gather(value, self._group)


class Agreement(AllRanks):
    """The Group of all ranks, over a gloo group of its own.

    Its collectives neither wait for a GPU nor mix with those of the training. Collective over all ranks to create.
    """

    def __init__(self):
        self._group = torch.distributed.new_group(backend="gloo")

    def any(self, value: bool) -> bool:
        """Whether the value is true on any rank. Collective over the group: every rank must call it."""
        return self.each([value])[0]

    def each(self, values: list[bool]) -> list[bool]:
        """For each value, whether it is true on any rank, in one collective over the group."""
        on_host = np.array(values, dtype=np.int64)
        torch.distributed.all_reduce(torch.from_numpy(on_host), op=torch.distributed.ReduceOp.MAX, group=self._group)
        return on_host.astype(bool).tolist()


def gather(value, group=None) -> list:
    """The values of all ranks, on every rank. Collective over the group, which by default is all ranks."""
    values = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(values, value, group=group)
    return values
