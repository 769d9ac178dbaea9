"""Views of parameters that the backward pass needs, remembered by their place, so that ZeRO 3 can free the weights.

ZeRO 3 gathers the parameters of a module before its forward pass, frees them behind it, and gathers them again for the
backward pass. It frees a parameter by giving it an empty tensor, so a view that autograd has saved keeps the gathered
weights. Experts save views: those of stacked weights by expert, and those of packed weights by name. In a checkpointed
block they keep nothing between the passes, and the views of its recomputation end with its backward pass.
"""

from dataclasses import dataclass
from functools import wraps

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from models.sparse_ffn import SparseFFN
from train.parallel.expert_parallel import ExpertParallelExperts
from train.parallel.recomputation import in_checkpointed_block


@dataclass(frozen=True)
class _View:
    """A view of a parameter's data, wherever that may be."""

    parameter: nn.Parameter
    size: torch.Size
    stride: tuple[int, ...]
    offset: int  # in elements, from the parameter's first

    def tensor(self) -> torch.Tensor:
        data = self.parameter.data
        return data.as_strided(self.size, self.stride, data.storage_offset() + self.offset)


def remember_views_of_experts(model: nn.Module) -> None:
    """Let the experts of every sparse layer save no views of their parameters."""
    for layer in model.modules():
        if isinstance(layer, SparseFFN):
            experts = layer.experts
            remember_views(experts.experts if isinstance(experts, ExpertParallelExperts) else experts)


def remember_views(module: nn.Module) -> None:
    """Let the forward pass of a module save no views of its own parameters."""
    forward = module.forward

    @wraps(forward)
    def remembering(*arguments, **keywords):
        if in_checkpointed_block():  # whose own hooks these would displace, and keep what it would recompute
            return forward(*arguments, **keywords)
        parameters = list(module.parameters(recurse=False))  # here, where they are gathered
        with saved_tensors_hooks(lambda tensor: _remember(tensor, parameters), _recall):
            return forward(*arguments, **keywords)

    module.forward = remembering


def _remember(tensor: torch.Tensor, parameters: list[nn.Parameter]) -> torch.Tensor | _View:
    for parameter in parameters:
        if _shares_memory(tensor, parameter):
            offset = tensor.storage_offset() - parameter.data.storage_offset()
            return _View(parameter, tensor.size(), tensor.stride(), offset)
    return tensor


def _recall(saved: torch.Tensor | _View) -> torch.Tensor:
    return saved.tensor() if isinstance(saved, _View) else saved


def _shares_memory(tensor: torch.Tensor, parameter: nn.Parameter) -> bool:
    """Gathered parameters may share one storage, in which each has its own run of elements."""
    data = parameter.data
    if tensor.untyped_storage().data_ptr() != data.untyped_storage().data_ptr() or tensor.dtype != data.dtype:
        return False
    return data.storage_offset() <= tensor.storage_offset() < data.storage_offset() + data.numel()
