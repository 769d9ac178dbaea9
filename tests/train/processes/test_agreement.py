"""A process alone agrees with itself, in the interface that all ranks use."""

import pytest
import torch.distributed as dist

from train.processes.agreement import Agreement, AllRanks, gather
from train.processes.ranks import free_port


@pytest.fixture
def process_group():
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{free_port()}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_group_of_one_rank_gathers_its_own_value(process_group):
    for group in (AllRanks(), Agreement()):
        assert (group.rank, group.size, group.gather({"step": 1})) == (0, 1, [{"step": 1}])
    assert gather("value") == ["value"]


def test_several_values_are_agreed_on_in_one_message(process_group):
    assert Agreement().each([True, False, True]) == [True, False, True]


@pytest.mark.parametrize("value", [False, True])
def test_any_is_the_value_of_the_only_rank(process_group, value):
    assert Agreement().any(value) is value
