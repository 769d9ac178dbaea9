"""PackedExperts: one rank's experts under the parameter names that DeepSpeed requires, with their elements' offsets."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from models.dispatch import DispatchPlan
from models.experts import Experts, Segment


class PackedExperts(nn.Module):
    """The experts of one rank as three 3-D parameters: w1 up_proj, w2 down_proj, w3 all vectors side by side."""

    def __init__(self, whole: Experts, expert_ids: range):
        """expert_ids: global ids of this rank's experts."""
        super().__init__()
        self.expert_ids = expert_ids
        self._compute, self._initialize = whole.compute, whole.initialize  # methods: not registered as submodules
        self._shapes = {name: parameter.shape[1:] for name, parameter in whole.named_parameters()}
        self._vectors = [name for name in self._shapes if name not in ("up_proj", "down_proj")]
        self._vector_sizes = [self._shapes[name].numel() for name in self._vectors]
        new, num_experts = whole.up_proj.new_empty, len(expert_ids)
        self.w1 = nn.Parameter(new(num_experts, *_as_matrix(self._shapes["up_proj"])))
        self.w2 = nn.Parameter(new(num_experts, *_as_matrix(self._shapes["down_proj"])))
        self.w3 = nn.Parameter(new(num_experts, 1, sum(self._vector_sizes)))

    def weights(self) -> dict[str, torch.Tensor]:
        """The tensors [e, ...] under their names in models.experts, as views."""
        vectors = dict(zip(self._vectors, self.w3.squeeze(1).split(self._vector_sizes, dim=1), strict=True))
        packed = {"up_proj": self.w1, "down_proj": self.w2, **vectors}
        return {name: packed[name].view(len(self.w1), *shape) for name, shape in self._shapes.items()}

    def initialize(self, weights: dict[str, torch.Tensor]) -> None:
        """Like models.experts.Experts.initialize."""
        self._initialize(weights)

    def forward(self, hidden_TD: torch.Tensor, plan: DispatchPlan, segment: Segment | None) -> torch.Tensor:
        return self._compute(hidden_TD, plan, self.weights(), segment)

    def offsets(self) -> dict[str, list["ShardOffsets"]]:
        """The offsets of w1, w2 and w3 in the tensors of models.experts."""
        offsets = {}
        for parameter, name in (("w1", "up_proj"), ("w2", "down_proj")):
            size = self._shapes[name].numel()
            offsets[parameter] = [ShardOffsets(0, len(self.expert_ids) * size, name, self.expert_ids.start * size)]
        row = sum(self._vector_sizes)
        begins = [sum(self._vector_sizes[:index]) for index in range(len(self._vectors))]
        offsets["w3"] = [
            ShardOffsets(local * row + begin, size, name, expert * size)
            for local, expert in enumerate(self.expert_ids)
            for name, begin, size in zip(self._vectors, begins, self._vector_sizes, strict=True)
        ]
        return offsets


def _as_matrix(shape: torch.Size) -> tuple[int, int]:
    """DeepSpeed takes matrices per expert: stacked sublayers [S, rows, columns] become [S * rows, columns]."""
    return shape[:-1].numel(), shape[-1]


@dataclass(frozen=True)
class ShardOffsets:
    """Elements [begin, begin + size) of a local parameter, flattened, are [offset, offset + size) of a tensor `name`.

    The tensor is that of the whole model on one device, flattened; for experts, the stack of all of them.
    """

    begin: int
    size: int
    name: str
    offset: int


def parameter_offsets(model: nn.Module) -> dict[str, list[ShardOffsets]]:
    """The offsets of each local parameter's elements in the whole model, by the parameter's name in this one."""
    offsets = {name: [ShardOffsets(0, _numel(p), name, 0)] for name, p in model.named_parameters()}
    for name, module in model.named_modules():
        if isinstance(module, PackedExperts):
            layer = name.removesuffix(".experts")  # of ExpertParallelExperts, which stands for models.experts.Experts
            for parameter, found in module.offsets().items():
                offsets[f"{name}.{parameter}"] = [replace(part, name=f"{layer}.{part.name}") for part in found]
    return offsets


def _numel(parameter: nn.Parameter) -> int:
    return getattr(parameter, "ds_numel", parameter.numel())  # ZeRO 3 leaves an empty tensor behind
