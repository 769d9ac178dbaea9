"""The shards of a plain optimizer are views of its whole state, and filling them restores it."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from train.checkpoint import state_shards
from train.checkpoint.state_shards import (
    _overlap,
    _Part,
    num_updates,
    owned_shards,
    restore_counters,
    restore_state,
)
from train.checkpoint.stored_state import WEIGHT, StoredState, write_shards
from train.parallel.packed_experts import ShardOffsets

INPUTS = torch.arange(12.0).view(4, 3) / 12


@pytest.fixture(autouse=True)
def rank(monkeypatch):
    """Set the rank of this process; 0 unless set."""

    def set_rank(rank: int) -> None:
        monkeypatch.setattr(state_shards.dist, "get_rank", lambda group=None: rank)

    set_rank(0)
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


def test_without_zero_only_the_first_of_equal_ranks_saves(rank):
    rank(1)
    assert owned_shards(make_engine()) == []


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("restoring_rank", [0, 1])
def test_a_restored_run_continues_as_the_uninterrupted_one(tmp_path, rank, optimizer, restoring_rank):
    uninterrupted, resumed = make_engine(optimizer=optimizer), make_engine(seed=1, optimizer=optimizer)
    train(uninterrupted, 3)
    stored, updates = save(uninterrupted, tmp_path / "state.safetensors"), num_updates(uninterrupted)
    rank(restoring_rank)
    restore_state(resumed, stored)
    restore_counters(resumed, step=5, updates=updates)
    train(uninterrupted, 2)
    train(resumed, 2)
    for name, parameter in uninterrupted.module.named_parameters():
        assert torch.equal(parameter, resumed.module.get_parameter(name)), name
    assert uninterrupted.optimizer.param_groups[0]["lr"] == resumed.optimizer.param_groups[0]["lr"]


def test_every_counter_of_steps_is_restored():
    engine = make_engine()
    train(engine, 1)
    restore_counters(engine, step=5, updates=3)
    assert num_updates(engine) == 3 and engine.lr_scheduler.last_epoch == 3
    assert engine.lr_scheduler.get_last_lr() == [0.1 / 4] and engine.optimizer.param_groups[0]["lr"] == 0.1 / 4
    assert (engine.global_steps, engine.skipped_steps) == (5, 2)
    assert (engine.micro_steps, engine.global_samples) == (10, 40)


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
    part = _Part("packed", start, {WEIGHT: torch.arange(4)}, is_first_copy=True)
    shards = _overlap(part, ShardOffsets(begin, size, "w", 100))
    assert [(s.name, s.kind, s.offset, s.values.tolist()) for s in shards] == (
        [("w", WEIGHT, *found)] if found is not None else []
    )
