"""Peak memory and sent bytes count what a variant allocates and sends, and nothing else."""

import pytest
import torch

from launch.benchmark.costs import count_traffic, highest_sum, peak_bytes, sent_bytes


def test_peak_is_the_highest_running_sum():
    assert highest_sum([100, 50, -100, 20, -70]) == 150
    assert highest_sum([-100]) == 0


def test_peak_memory_counts_temporaries_and_not_older_tensors():
    before = [torch.ones(1000, 1000)]  # 4 MB

    def run():
        (before[0] + 1).add_(before[0] * 2)  # two tensors of 4 MB, both released
        before.clear()
        return torch.ones(500, 1000)  # 2 MB, after 8 were released

    assert peak_bytes(run, torch.device("cpu")) == pytest.approx(8e6, abs=1000)


def test_sent_bytes_exclude_the_part_that_a_rank_keeps(monkeypatch):
    monkeypatch.setattr("torch.distributed.get_world_size", lambda group: 3)
    monkeypatch.setattr("torch.distributed.get_rank", lambda group: 1)
    tensor = torch.zeros(9, 5)  # 20 bytes per row
    assert sent_bytes(tensor, [4, 3, 2], None) == (4 + 2) * 20
    assert sent_bytes(tensor, None, None) == (3 + 3) * 20


def test_traffic_is_counted_inside_the_block_only():
    original = torch.distributed.all_to_all_single
    with count_traffic():
        assert torch.distributed.all_to_all_single is not original
    assert torch.distributed.all_to_all_single is original
