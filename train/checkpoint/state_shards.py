"""State shards: a rank's training state as flat slices of tensors whose names do not depend on the number of ranks.

Only this file knows how DeepSpeed's optimizers lay out master weights and moments. A shard is a view of live memory:
reading it saves the state, writing into it restores the state.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import deepspeed.comm as dist
import torch
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from deepspeed.utils import groups

from train.checkpoint.stored_state import WEIGHT, StateShard, StoredState
from train.parallel.packed_experts import ShardOffsets, parameter_offsets

# The moments that each optimizer keeps for every weight, by their names in torch.
_MOMENTS = {torch.optim.AdamW: ("exp_avg", "exp_avg_sq"), torch.optim.SGD: ()}


@dataclass(frozen=True)
class _Part:
    """The slice of one local parameter whose state this rank keeps: elements [start, start + size of a view)."""

    parameter: str
    start: int
    views: dict[str, torch.Tensor]
    is_first_copy: bool  # False if another rank saves the same slice


def owned_shards(engine: DeepSpeedEngine) -> list[StateShard]:
    """The shards that this rank saves; those of all ranks together cover every tensor exactly once."""
    return list(_shards(engine, [part for part in _parts(engine) if part.is_first_copy]))


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
    """Fill every shard that this rank keeps, then the model's parameters. Collective over all ranks with ZeRO 3."""
    for shard in _shards(engine, list(_parts(engine))):
        stored.read(shard.kind, shard.name, shard.offset, shard.values)
    offsets = parameter_offsets(engine.module)
    for name, parameter in engine.module.named_parameters():
        # Without ZeRO, the parameters are the weights. With ZeRO 1 and 2, every rank holds all of them beside its slice
        # of the master weights; with ZeRO 3, it holds a slice of each.
        weights = torch.empty(offsets[name][-1].begin + offsets[name][-1].size)
        for piece in offsets[name]:
            stored.read(WEIGHT, piece.name, piece.offset, weights[piece.begin : piece.begin + piece.size])
        _set_parameter(engine.optimizer, parameter, weights)
    persistent = getattr(engine.optimizer, "persistent_parameters", [])
    if persistent:  # small parameters, which ZeRO 3 keeps whole on every rank
        persistent[0].partition(persistent)
        persistent[0].all_gather(persistent)


def _set_parameter(optimizer, parameter: torch.nn.Parameter, weights: torch.Tensor) -> None:
    if not hasattr(parameter, "ds_id"):
        parameter.data.view(-1).copy_(weights)
        return
    rank, size = dist.get_rank(_zero3_group(optimizer, parameter)), parameter.ds_tensor.numel()
    mine = weights[rank * size : (rank + 1) * size]
    parameter.ds_tensor.data[: len(mine)].copy_(mine)


def _shards(engine: DeepSpeedEngine, parts: list[_Part]) -> Iterator[StateShard]:
    offsets = parameter_offsets(engine.module)
    for part in parts:
        for piece in offsets[part.parameter]:
            yield from _overlap(part, piece)


def _overlap(part: _Part, piece: ShardOffsets) -> Iterator[StateShard]:
    """The shards, one of each kind, of the elements that are both in the part and in the piece."""
    size = len(part.views[WEIGHT])
    begin, end = max(part.start, piece.begin), min(part.start + size, piece.begin + piece.size)
    if begin < end:
        offset = piece.offset + begin - piece.begin
        for kind, view in part.views.items():
            yield StateShard(piece.name, kind, offset, view[begin - part.start : end - part.start])


def _parts(engine: DeepSpeedEngine) -> Iterator[_Part]:
    optimizer = engine.optimizer
    for name, parameter in engine.module.named_parameters():
        if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
            part = _zero3_part(optimizer, name, parameter)
        elif isinstance(optimizer, DeepSpeedZeroOptimizer | BF16_Optimizer):
            part = _zero_part(optimizer, name, parameter)
        else:
            views = _views(optimizer, parameter, slice(None))
            part = _Part(name, 0, views, is_first_copy=_data_parallel_rank(parameter) == 0)
        if part is not None:
            yield part


def _zero_part(optimizer, name: str, parameter: torch.nn.Parameter) -> _Part | None:
    mapping = parameter._hp_mapping
    if mapping is None:  # other ranks keep all of it
        return None
    bf16 = isinstance(optimizer, BF16_Optimizer)
    partitions = optimizer.fp32_groups_flat_partition if bf16 else optimizer.single_partition_of_fp32_groups
    address = mapping.hp_fragment_address
    place = slice(address.start, address.start + address.numel)
    views = _views(optimizer.optimizer, partitions[mapping.param_group_index], place)
    return _Part(name, mapping.lp_fragment_address.start, views, is_first_copy=True)


def _zero3_part(optimizer, name: str, parameter: torch.nn.Parameter) -> _Part | None:
    group, begin, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
    start = dist.get_rank(_zero3_group(optimizer, parameter)) * size
    count = min(size, parameter.ds_numel - start)  # the slices of the last ranks end in padding
    if count <= 0:
        return None
    views = _views(optimizer.optimizer, optimizer.fp32_partitioned_groups_flat[group], slice(begin, begin + count))
    return _Part(name, start, views, is_first_copy=True)


def _zero3_group(optimizer, parameter: torch.nn.Parameter):
    return optimizer._get_param_partition_group(parameter)


def _views(optimizer: torch.optim.Optimizer, weights: torch.Tensor, place: slice) -> dict[str, torch.Tensor]:
    """The weights and their moments, which torch creates in the first update, and this function if called before it."""
    state, moments = optimizer.state[weights], _MOMENTS[type(optimizer)]
    if moments and not state:
        state["step"] = torch.zeros((), device=weights.device)  # where fused optimizers read it
        state.update({kind: torch.zeros_like(weights) for kind in moments})
    tensors = {WEIGHT: weights.data, **{kind: state[kind] for kind in moments}}
    return {kind: tensor.view(-1)[place] for kind, tensor in tensors.items()}


def _inner(optimizer) -> torch.optim.Optimizer:
    """The run's own optimizer, which DeepSpeed may have wrapped."""
    return optimizer if type(optimizer) in _MOMENTS else optimizer.optimizer


def _data_parallel_rank(parameter: torch.nn.Parameter) -> int:
    """This rank's index among the ranks that hold the same parameter."""
    if getattr(parameter, "allreduce", True):
        return dist.get_rank()
    return dist.get_rank(groups._get_expert_data_parallel_group(parameter.group_name))
