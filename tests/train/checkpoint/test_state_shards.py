"""Shards are views of the state that a rank keeps, without and with ZeRO, and filling them restores it."""

import copy
from types import SimpleNamespace

import pytest
import torch
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from torch import nn

from train.checkpoint import state_parts
from train.checkpoint.files.stored_state import WEIGHT, StoredState, write_shards
from train.checkpoint.state_parts import StatePart
from train.checkpoint.state_shards import (
    _overlap,
    num_updates,
    owned_shards,
    restore_counters,
    restore_state,
)
from train.parallel.packed_experts import ShardOffsets

INPUTS = torch.arange(12.0).view(4, 3) / 12


@pytest.fixture(autouse=True)
def rank(monkeypatch):
    """Set the rank of this process, and the number of ranks, among all or in a group; alone among all unless set."""
    ranks = {None: (0, 1)}
    monkeypatch.setattr(state_parts.dist, "get_rank", lambda group=None: ranks[group][0])
    monkeypatch.setattr(state_parts.dist, "get_world_size", lambda group=None: ranks[group][1])

    def set_rank(rank: int, group: str | None = None, size: int = 1) -> None:
        ranks[group] = rank, size

    return set_rank


def make_engine(*, seed: int = 0, optimizer=torch.optim.AdamW) -> SimpleNamespace:
    torch.manual_seed(seed)
    module = nn.Linear(3, 2)
    inner = optimizer(module.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(inner, lambda step: 1 / (1 + step))
    sizes = {"gradient_accumulation_steps": lambda: 2, "train_batch_size": lambda: 8}
    return SimpleNamespace(module=module, optimizer=inner, lr_scheduler=schedule, **sizes)


def train(engine, num_steps: int) -> None:
    for _ in range(num_steps):
        engine.optimizer.zero_grad()
        engine.module(INPUTS).square().sum().backward()
        engine.optimizer.step()
        engine.lr_scheduler.step()


def save(engine, path) -> StoredState:
    write_shards(path, copy.deepcopy(owned_shards(engine)))
    return StoredState([path])


@pytest.mark.parametrize(
    ("optimizer", "kinds"),
    [(torch.optim.AdamW, {WEIGHT, "exp_avg", "exp_avg_sq"}), (torch.optim.SGD, {WEIGHT})],
)
def test_the_shards_are_views_of_every_weight_and_its_moments(optimizer, kinds):
    engine = make_engine(optimizer=optimizer)
    shards = {(shard.kind, shard.name): shard for shard in owned_shards(engine)}
    assert shards.keys() == {(kind, name) for kind in kinds for name in ("weight", "bias")}
    assert all(shard.offset == 0 for shard in shards.values())
    shards[WEIGHT, "weight"].values[4] = 7
    assert engine.module.weight[1, 1] == 7


def test_moments_are_zero_before_the_first_update():
    shards = owned_shards(make_engine())
    assert all(shard.values.eq(0).all() for shard in shards if shard.kind != WEIGHT)


def test_a_fused_optimizer_finds_its_count_beside_the_weights():
    weights = torch.nn.Parameter(torch.empty(2, device="meta"))
    for fused, device in ((None, "cpu"), (True, "meta")):
        optimizer = torch.optim.AdamW([weights])
        optimizer.defaults["fused"] = fused
        state_parts._views(optimizer, weights, slice(None))
        assert optimizer.state[weights]["step"].device.type == device


def test_without_zero_only_the_first_of_equal_ranks_saves(rank):
    rank(1)
    assert owned_shards(make_engine()) == []


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_a_restored_run_continues_as_the_uninterrupted_one(tmp_path, optimizer):
    uninterrupted, resumed = make_engine(optimizer=optimizer), make_engine(seed=1, optimizer=optimizer)
    train(uninterrupted, 3)
    stored, updates = save(uninterrupted, tmp_path / "state.safetensors"), num_updates(uninterrupted)
    restore_state(resumed, stored)
    restore_counters(resumed, step=5, updates=updates)
    train(uninterrupted, 2)
    train(resumed, 2)
    for name, parameter in uninterrupted.module.named_parameters():
        assert torch.equal(parameter, resumed.module.get_parameter(name)), name
    assert uninterrupted.optimizer.param_groups[0]["lr"] == resumed.optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("number", [0, 1])
def test_without_zero_equal_ranks_read_a_share_each_and_gather_the_rest(tmp_path, rank, monkeypatch, number):
    """The weight has 7 elements: shares of 4 and 3, the last one padded; the bias has 2."""
    saved, resumed, gathered = make_engine(), make_engine(seed=1, optimizer=torch.optim.SGD), []
    saved.module.weight.data, resumed.module.weight.data = torch.arange(7.0).view(7, 1), torch.full((7, 1), -1.0)
    stored = save(saved, tmp_path / "state.safetensors")
    expected = {"weight": [[0, 1, 2, 3], [4, 5, 6, 0]], "bias": [[value] for value in saved.module.bias.tolist()]}

    def all_gather(whole, share, group):
        name = ("weight", "bias")[len(gathered)]
        gathered.append(share.tolist())
        whole.copy_(torch.tensor(expected[name]).flatten())

    monkeypatch.setattr(state_parts.dist, "all_gather_into_tensor", all_gather)
    rank(number, size=2)
    restore_state(resumed, stored)
    assert gathered == [expected["weight"][number], expected["bias"][number]]
    assert torch.equal(resumed.module.weight, saved.module.weight)
    assert torch.equal(resumed.module.bias, saved.module.bias)


def test_every_counter_of_steps_is_restored():
    engine = make_engine()
    train(engine, 1)
    restore_counters(engine, step=5, updates=3)
    assert num_updates(engine) == 3 and engine.lr_scheduler.last_epoch == 3
    assert engine.lr_scheduler.get_last_lr() == [0.1 / 4] and engine.optimizer.param_groups[0]["lr"] == 0.1 / 4
    assert (engine.global_steps, engine.skipped_steps) == (5, 2)
    assert (engine.micro_steps, engine.global_samples) == (10, 40)


def test_a_parameter_that_is_not_trained_does_not_lower_the_number_of_updates():
    engine = make_engine()
    owned_shards(engine)  # creates the moments, with 0 updates
    engine.module.bias.requires_grad = False
    train(engine, 1)
    assert num_updates(engine) == 1


@pytest.mark.parametrize(
    ("start", "begin", "size", "found"),
    [
        (10, 0, 30, (100 + 10, [0, 1, 2, 3])),  # the part lies inside the piece
        (10, 11, 2, (100, [1, 2])),  # the piece lies inside the part
        (10, 12, 9, (100, [2, 3])),  # the part ends first
        (10, 4, 8, (100 + 6, [0, 1])),  # the piece ends first
        (10, 0, 10, None),  # they only touch
        (10, 14, 5, None),
    ],
)
def test_the_overlap_of_a_part_and_a_piece(start, begin, size, found):
    """The part holds the elements 10 to 13 of a parameter; the piece is stored from element 100 of "w" on."""
    part = StatePart("packed", start, {WEIGHT: torch.arange(4)})
    shards = _overlap(part, ShardOffsets(begin, size, "w", 100))
    assert [(s.name, s.kind, s.offset, s.values.tolist()) for s in shards] == (
        [("w", WEIGHT, *found)] if found is not None else []
    )


def test_without_zero_the_first_rank_that_holds_an_expert_saves_it(rank, monkeypatch):
    monkeypatch.setattr(state_parts.groups, "_get_expert_data_parallel_group", lambda name: f"equals in {name}")
    engine = make_engine()
    engine.module.weight.allreduce, engine.module.weight.group_name = False, "ep_size_2"
    rank(1, size=4)
    rank(0, "equals in ep_size_2", size=2)
    assert {shard.name for shard in owned_shards(engine)} == {"weight"}


def with_zero(kind: type, partitions: str) -> tuple[SimpleNamespace, torch.Tensor]:
    """An engine whose optimizer is DeepSpeed's, as far as the shards know it, and the partition that holds its slices.

    partitions: the optimizer's name for the flat tensors of master weights.
    """
    engine, flat = make_engine(), [torch.zeros(2), torch.arange(7.0)]
    engine.optimizer = kind.__new__(kind)
    engine.optimizer.optimizer = torch.optim.AdamW(flat, lr=0.1)
    setattr(engine.optimizer, partitions, flat)
    return engine, flat[1]


@pytest.fixture(
    params=[
        (DeepSpeedZeroOptimizer, "single_partition_of_fp32_groups"),
        (BF16_Optimizer, "fp32_groups_flat_partition"),
    ]
)
def zero_2(request):
    """A rank with elements 2 to 4 of the weight, from element 1 of the second partition on; others keep the bias."""
    engine, partition = with_zero(*request.param)
    engine.module.weight._hp_mapping = SimpleNamespace(
        param_group_index=1,
        lp_fragment_address=SimpleNamespace(start=2, numel=3),
        hp_fragment_address=SimpleNamespace(start=1, numel=3),
    )
    engine.module.bias._hp_mapping = None
    return engine, partition


def test_with_zero_1_and_2_the_shards_are_views_of_the_master_weights(zero_2):
    engine, partition = zero_2
    shards = owned_shards(engine)
    assert [(s.kind, s.name, s.offset, s.values.tolist()) for s in shards] == [
        (WEIGHT, "weight", 2, [1, 2, 3]), ("exp_avg", "weight", 2, [0] * 3), ("exp_avg_sq", "weight", 2, [0] * 3),
    ]  # fmt: skip
    shards[0].values[0] = 7
    assert partition.tolist() == [0, 7, 2, 3, 4, 5, 6]


def test_with_zero_1_and_2_the_slice_is_restored_and_the_optimizer_gathers_the_parameters(tmp_path, zero_2):
    saved, (engine, partition), gathered = make_engine(seed=1), zero_2, []
    engine.optimizer.update_lp_params = lambda: gathered.append(partition.clone())
    train(saved, 1)
    restore_state(engine, save(saved, tmp_path / "state.safetensors"))
    assert torch.equal(partition[1:4], saved.module.weight.flatten()[2:5])
    assert len(gathered) == 1 and torch.equal(gathered[0], partition)  # after the slice was filled
    restore_counters(engine, step=5, updates=4)
    assert num_updates(engine) == 4


def zero_3() -> tuple[SimpleNamespace, torch.Tensor]:
    """A rank with up to 4 of the weight's 6 elements, from element 1 of the second partition on, and 1 of the bias's 2.

    The process group is called "weight" or "bias".
    """
    engine, partition = with_zero(DeepSpeedZeroOptimizer_Stage3, "fp32_partitioned_groups_flat")
    names = {}
    for number, (name, size) in enumerate([("weight", 4), ("bias", 1)]):
        parameter = engine.module.get_parameter(name)
        parameter.ds_id, parameter.ds_numel, parameter.ds_tensor = number, parameter.numel(), torch.full((size,), -1.0)
        parameter.data, names[parameter] = torch.empty(0), name
    engine.optimizer.grad_position = {0: [1, 1, 4], 1: [1, 5, 1]}
    engine.optimizer._get_param_partition_group = names.get
    engine.optimizer.persistent_parameters = []
    return engine, partition


@pytest.mark.parametrize(
    ("number", "found"),
    [
        (0, [("weight", 0, [1, 2, 3, 4]), ("bias", 0, [5])]),
        (1, [("weight", 4, [1, 2]), ("bias", 1, [5])]),  # elements 6 and 7 of the weight are padding
        (2, []),
    ],
)
def test_with_zero_3_a_rank_saves_its_slice_without_the_padding(rank, number, found):
    engine, _ = zero_3()
    rank(number, "weight")
    rank(number, "bias")
    shards = owned_shards(engine)
    assert [(s.name, s.offset, s.values.tolist()) for s in shards if s.kind == WEIGHT] == found
    assert len(shards) == 3 * len(found)


def test_with_zero_3_the_slices_of_the_parameters_are_restored(tmp_path, rank):
    saved, (engine, partition), calls = make_engine(seed=1), zero_3(), []
    rank(1, "weight")
    rank(0, "bias")
    small = SimpleNamespace(
        partition=lambda parameters: calls.append(("partition", parameters)),
        all_gather=lambda parameters: calls.append(("all_gather", parameters)),
    )
    engine.optimizer.persistent_parameters = [small]
    restore_state(engine, save(saved, tmp_path / "state.safetensors"))
    weight, bias = saved.module.weight.flatten().tolist(), saved.module.bias.tolist()
    assert partition.tolist() == [0, *weight[4:], 3, 4, bias[0], 6]
    assert engine.module.weight.ds_tensor.tolist() == [*weight[4:], -1, -1]
    assert engine.module.bias.ds_tensor.tolist() == bias[:1]
    assert calls == [("partition", [small]), ("all_gather", [small])]
