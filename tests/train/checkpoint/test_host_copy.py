"""A host copy holds the state of its save while training changes the live one, and its memory is allocated once."""

import pytest
import torch

from train.checkpoint import host_copy as host_copy_module
from train.checkpoint.files.stored_state import WEIGHT, StateShard
from train.checkpoint.host_copy import HostCopy


def shards(*values: torch.Tensor) -> list[StateShard]:
    return [StateShard(f"w.{number}", WEIGHT, 10 * number, of) for number, of in enumerate(values)]


def test_a_copy_keeps_the_values_names_and_offsets_of_its_moment():
    live = [torch.arange(3.0), torch.arange(5.0)]
    host_copy = HostCopy()
    copies = host_copy.take(shards(*live))
    host_copy.wait()
    live[0].zero_()
    live[1].zero_()
    assert [(s.name, s.kind, s.offset, s.values.tolist()) for s in copies] == [
        ("w.0", WEIGHT, 0, [0, 1, 2]), ("w.1", WEIGHT, 10, [0, 1, 2, 3, 4]),
    ]  # fmt: skip


def test_a_later_copy_takes_the_memory_of_the_one_before():
    host_copy = HostCopy()
    first = host_copy.take(shards(torch.zeros(3), torch.zeros(5)))
    second = host_copy.take(shards(torch.ones(3), torch.ones(5)))
    assert [s.values.data_ptr() for s in first] == [s.values.data_ptr() for s in second]
    assert all(s.values.eq(1).all() for s in first)


def test_memory_is_allocated_in_blocks_and_a_shard_that_crosses_a_border_becomes_two(monkeypatch):
    monkeypatch.setattr(host_copy_module, "BLOCK", 4)
    sizes, empty = [], torch.empty
    monkeypatch.setattr(torch, "empty", lambda size, **options: sizes.append(size) or empty(size, **options))
    copies = HostCopy().take(shards(torch.arange(3.0), torch.arange(6.0), torch.arange(1.0)))
    assert sizes == [4, 4, 2]
    assert [(s.name, s.offset, s.values.tolist()) for s in copies] == [
        ("w.0", 0, [0, 1, 2]), ("w.1", 10, [0]), ("w.1", 11, [1, 2, 3, 4]), ("w.1", 15, [5]), ("w.2", 20, [0]),
    ]  # fmt: skip


def test_a_state_of_another_size_gets_memory_of_its_own():
    host_copy = HostCopy()
    host_copy.take(shards(torch.zeros(3)))
    [copy] = host_copy.take(shards(torch.ones(4)))
    assert copy.values.tolist() == [1, 1, 1, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpus_state_goes_to_pinned_memory_without_another_allocation_on_the_device():
    live = torch.rand(1 << 20, device="cuda")
    expected, host_copy, before = live.cpu(), HostCopy(), torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    [copy] = host_copy.take(shards(live))
    live.zero_()  # on the training's stream, behind the copy
    assert torch.cuda.max_memory_allocated() == before
    host_copy.wait()
    assert copy.values.is_pinned() and torch.equal(copy.values, expected)
