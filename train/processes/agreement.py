"""Agreement: questions that all ranks must answer alike, each one small collective between hosts."""

import torch
import torch.distributed


class Agreement:
    """Uses a gloo group of its own, so that asking neither waits for a GPU nor mixes with the training's collectives.

    Collective over all ranks, as is every question.
    """

    def __init__(self):
        self._group = torch.distributed.new_group(backend="gloo")

    def any(self, answer: bool) -> bool:
        """Whether any rank says yes."""
        answers = torch.tensor(int(answer))
        torch.distributed.all_reduce(answers, op=torch.distributed.ReduceOp.MAX, group=self._group)
        return bool(answers)

    def gather(self, value) -> list:
        """The values of all ranks, on every rank."""
        return gather(value, self._group)


def gather(value, group=None) -> list:
    """The values of all ranks, on every rank. Collective over the group, all ranks by default."""
    values = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(values, value, group=group)
    return values
