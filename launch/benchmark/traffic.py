"""Count the bytes that this process really sends to other ranks through all-to-all collectives."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass
class Traffic:
    """num_bytes: sent to other ranks; what a rank keeps for itself does not travel. num_calls: of collectives."""

    num_bytes: int = 0
    num_calls: int = 0


@contextmanager
def count_traffic() -> Iterator[Traffic]:
    """Count within the block. torch.distributed is wrapped, through which deepspeed.comm goes too."""
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


def sent_bytes(rows: torch.Tensor, split_sizes: list[int] | None, group) -> int:
    """Bytes of the rows that go to other ranks of the group; without split sizes each rank gets equally many."""
    num_ranks, own = dist.get_world_size(group), dist.get_rank(group)
    sizes = list(split_sizes) if split_sizes else [len(rows) // num_ranks] * num_ranks
    row_bytes = rows[:1].nbytes
    return sum(size for rank, size in enumerate(sizes) if rank != own) * row_bytes
