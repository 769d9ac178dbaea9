"""A rank that fails ends the others, and its output is quoted."""

import pytest
import torch

from launch.benchmark.run_on_ranks import run_on_ranks


def fail_on_one(*, rank: int):
    if rank == 1:
        raise ValueError("rank 1 fails")
    torch.distributed.barrier()


@pytest.mark.distributed
def test_a_failing_rank_ends_the_others_and_its_output_is_quoted():
    with pytest.raises(RuntimeError, match="rank 1 fails"):
        run_on_ranks(fail_on_one, 2, device="cpu", threads=1)
