"""State shards: a rank's training state as flat slices of tensors whose names do not depend on the number of ranks.

A shard is a view of live memory: reading it saves the state, writing into it restores the state.
"""

from collections.abc import Iterator

import torch
from deepspeed.runtime.engine import DeepSpeedEngine

from train.checkpoint.files.stored_state import WEIGHT, StateShard, StoredState
from train.checkpoint.state_parts import MOMENTS, StatePart, set_parameters, state_parts
from train.parallel.packed_experts import ShardOffsets, parameter_offsets


def owned_shards(engine: DeepSpeedEngine) -> list[StateShard]:
    """The shards that this rank saves; those of all ranks together cover every tensor exactly once."""
    return list(_shards(engine, [part for part in state_parts(engine) if part.copy == 0]))


def num_updates(engine: DeepSpeedEngine) -> int:
    """Updates that the optimizer has made: all steps but the skipped ones."""
    states = _inner(engine.optimizer).state.values()
    return max((int(state["step"]) for state in states if "step" in state), default=engine.lr_scheduler.last_epoch)


def restore_counters(engine: DeepSpeedEngine, *, step: int, updates: int) -> None:
    """Set every step count that affects training: in Adam's bias correction, the schedule and the engine."""
    optimizer, schedule = _inner(engine.optimizer), engine.lr_scheduler
    for state in optimizer.state.values():
        if "step" in state:
            state["step"].fill_(updates)
    schedule.last_epoch = updates
    rates = [base * of_step(updates) for base, of_step in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates
    engine.global_steps, engine.skipped_steps = step, step - updates
    engine.micro_steps = step * engine.gradient_accumulation_steps()
    engine.global_samples = step * engine.train_batch_size()


@torch.no_grad()
def restore_state(engine: DeepSpeedEngine, stored: StoredState) -> None:
    """Fill the whole training state; the ranks read every element once. Collective over all ranks."""
    parts = list(state_parts(engine))
    for shard in _shards(engine, [part.share() for part in parts]):
        stored.read(shard.kind, shard.name, shard.offset, shard.values)
    for part in parts:
        part.complete()
    set_parameters(engine, parts)


def _shards(engine: DeepSpeedEngine, parts: list[StatePart]) -> Iterator[StateShard]:
    offsets = parameter_offsets(engine.module)
    for part in parts:
        for piece in offsets[part.parameter]:
            yield from _overlap(part, piece)


def _overlap(part: StatePart, piece: ShardOffsets) -> Iterator[StateShard]:
    """The shards, one of each kind, of the elements that are both in the part and in the piece."""
    size = len(part.views[WEIGHT])
    begin, end = max(part.start, piece.begin), min(part.start + size, piece.begin + piece.size)
    if begin < end:
        offset = piece.offset + begin - piece.begin
        for kind, view in part.views.items():
            yield StateShard(piece.name, kind, offset, view[begin - part.start : end - part.start])


def _inner(optimizer) -> torch.optim.Optimizer:
    """The run's own optimizer, which DeepSpeed may have wrapped."""
    return optimizer if type(optimizer) in MOMENTS else optimizer.optimizer
