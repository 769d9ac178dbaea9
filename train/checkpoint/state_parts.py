"""State parts: the slices of the training state on this rank, in whichever layout DeepSpeed's optimizer keeps them.

Only this file knows these layouts. A part's views are live memory: reading them saves the state, writing restores it.
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

from train.checkpoint.files.stored_state import WEIGHT

# The moments that each optimizer keeps for every weight, by their names in torch.
MOMENTS = {torch.optim.AdamW: ("exp_avg", "exp_avg_sq"), torch.optim.SGD: ()}


@dataclass(frozen=True)
class StatePart:
    """The slice of one local parameter whose state this rank keeps: elements [start, start + size of a view)."""

    parameter: str
    start: int
    views: dict[str, torch.Tensor]
    # The number of this rank among those that keep the same slice, how many they are, and their process group.
    copy: int = 0
    num_copies: int = 1
    group: object = None

    def share(self) -> "StatePart":
        """The n-th of the slice on the n-th rank that keeps it; the shares are equally long except the last ones."""
        size = self._share_size
        views = {kind: view[self.copy * size : (self.copy + 1) * size] for kind, view in self.views.items()}
        return StatePart(self.parameter, self.start + self.copy * size, views)

    def complete(self) -> None:
        """Fill the slice, of which every rank that keeps it has its share. Collective over their group."""
        if self.num_copies == 1:
            return
        for kind, share in self.share().views.items():
            padded = share.new_zeros(self._share_size)
            padded[: len(share)] = share
            whole = share.new_empty(self.num_copies * self._share_size)
            dist.all_gather_into_tensor(whole, padded, group=self.group)
            self.views[kind].copy_(whole[: len(self.views[kind])])

    @property
    def _share_size(self) -> int:
        return -(-len(self.views[WEIGHT]) // self.num_copies)


def state_parts(engine: DeepSpeedEngine) -> Iterator[StatePart]:
    """The parts that this rank keeps; those of all ranks together hold every parameter."""
    optimizer = engine.optimizer
    for name, parameter in engine.module.named_parameters():
        if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
            part = _zero3_part(optimizer, name, parameter)
        elif isinstance(optimizer, DeepSpeedZeroOptimizer | BF16_Optimizer):
            part = _zero_part(optimizer, name, parameter)
        else:
            group = _data_parallel_group(parameter)
            copy, num_copies = dist.get_rank(group), dist.get_world_size(group)
            part = StatePart(name, 0, _views(optimizer, parameter, slice(None)), copy, num_copies, group)
        if part is not None:
            yield part


def set_parameters(engine: DeepSpeedEngine, parts: list[StatePart]) -> None:
    """Set the model's parameters to the master weights; without ZeRO, they are the same. Collective over all ranks."""
    optimizer = engine.optimizer
    if isinstance(optimizer, DeepSpeedZeroOptimizer | BF16_Optimizer):
        optimizer.update_lp_params()
    if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
        for part in parts:
            weights = part.views[WEIGHT]
            engine.module.get_parameter(part.parameter).ds_tensor.data[: len(weights)].copy_(weights)
        persistent = optimizer.persistent_parameters
        if persistent:  # small parameters, which ZeRO 3 keeps whole on every rank
            persistent[0].partition(persistent)
            persistent[0].all_gather(persistent)


def _zero_part(optimizer, name: str, parameter: torch.nn.Parameter) -> StatePart | None:
    mapping = parameter._hp_mapping
    if mapping is None:  # other ranks keep all of it
        return None
    bf16 = isinstance(optimizer, BF16_Optimizer)
    partitions = optimizer.fp32_groups_flat_partition if bf16 else optimizer.single_partition_of_fp32_groups
    address = mapping.hp_fragment_address
    place = slice(address.start, address.start + address.numel)
    views = _views(optimizer.optimizer, partitions[mapping.param_group_index], place)
    return StatePart(name, mapping.lp_fragment_address.start, views)


def _zero3_part(optimizer, name: str, parameter: torch.nn.Parameter) -> StatePart | None:
    group, begin, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
    start = dist.get_rank(_zero3_group(optimizer, parameter)) * size
    count = min(size, parameter.ds_numel - start)  # the slices of the last ranks end in padding
    if count <= 0:
        return None
    views = _views(optimizer.optimizer, optimizer.fp32_partitioned_groups_flat[group], slice(begin, begin + count))
    return StatePart(name, start, views)


def _zero3_group(optimizer, parameter: torch.nn.Parameter):
    return optimizer._get_param_partition_group(parameter)


def _views(optimizer: torch.optim.Optimizer, weights: torch.Tensor, place: slice) -> dict[str, torch.Tensor]:
    """The weights and their moments, which torch creates in the first update, and this function if called before it."""
    state, moments = optimizer.state[weights], MOMENTS[type(optimizer)]
    if moments and not state:
        is_fused = optimizer.defaults.get("fused")  # then the count lies beside the weights
        state["step"] = torch.zeros((), device=weights.device if is_fused else None)
        state.update({kind: torch.zeros_like(weights) for kind in moments})
    tensors = {WEIGHT: weights.data, **{kind: state[kind] for kind in moments}}
    return {kind: tensor.view(-1)[place] for kind, tensor in tensors.items()}


def _data_parallel_group(parameter: torch.nn.Parameter):
    """The ranks that hold the same parameter; None for all ranks."""
    if getattr(parameter, "allreduce", True):
        return None
    return groups._get_expert_data_parallel_group(parameter.group_name)
