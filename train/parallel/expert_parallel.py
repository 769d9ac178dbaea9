"""Expert parallelism from outside: replace a model's Experts by their share on this rank, in DeepSpeed's groups.

All of the project's contact with DeepSpeed's mixture-of-experts code is in this file. DeepSpeed recognises expert
parameters by isinstance alone; AutoEPMoELayer is the base that ZeRO 0 to 3 and stacked weights accept. It demands
exactly three 3-D parameters `experts.w1/w2/w3` and nothing of its constructor, which would build a learned router.
"""

from dataclasses import dataclass, replace

import deepspeed.comm as dist
import torch
from deepspeed.checkpoint.autoep_affine import (
    autoep_experts_for_rank,
    autoep_placement_to_affine_map,
    legacy_uniform_autoep_placement_descriptor,
)
from deepspeed.checkpoint.constants import (
    AFFINE_MAP,
    AUTOEP_EXPERT_PLACEMENT,
    AUTOEP_PARAM_EP_RANK,
    AUTOEP_PARAM_LOCAL_EXPERTS,
    AUTOEP_PARAM_LOGICAL_SHAPE,
    DS_AUTOEP_UC_META,
)
from deepspeed.module_inject.auto_ep_layer import AutoEPMoELayer
from deepspeed.utils import groups
from torch import nn

from models.dispatch import Plan, combine, dispatch, make_plan
from models.experts import Experts, Segment
from models.routes import Routes
from models.sparse_ffn import SparseFFN


def parallelize_experts(model: nn.Module, *, ep_size: int) -> None:
    """Replace the Experts of every sparse layer by this rank's share; with ep_size 1 the model stays as it is.

    Collective over all ranks: creates DeepSpeed's expert-parallel groups. Works on meta tensors; the shares
    are allocated empty on the same device and want initialising.
    """
    if ep_size == 1:
        return
    groups._create_expert_and_data_parallel(ep_size)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, SparseFFN):
            layer.experts = ExpertParallelExperts(layer.experts, ep_size=ep_size)
            _refuse_buffers(f"{name}.experts", layer.experts)


@dataclass(frozen=True)
class AllToAllSplits:
    """How rows travel between the P ranks of the expert-parallel group.

    num_kept: rows that stay on this rank; they come first among those that leave and among those that arrive.
    input_splits, output_splits: rows to and from each rank, host integers; 0 for this one.
    local: the plan of the rows that stayed and arrived, over this rank's experts; None where no experts compute.
    """

    num_kept: int
    input_splits: list[int]
    output_splits: list[int]
    local: Plan | None

    @property
    def reversed(self) -> "AllToAllSplits":
        """The way back."""
        return replace(self, input_splits=self.output_splits, output_splits=self.input_splits)


def make_exchange(send_Pe: torch.Tensor, receive_Pe: torch.Tensor, *, rank: int) -> AllToAllSplits:
    """From the rows that rank number `rank` sends to, and receives for, each expert of each rank, integers [P, e]."""
    num_ranks, num_local_experts = receive_Pe.shape
    # Rows lie by (source rank, expert), this rank's first; the experts want (expert, source rank).
    sources = torch.tensor([rank, *(source for source in range(num_ranks) if source != rank)])
    expert_R = torch.arange(num_local_experts, device=receive_Pe.device).repeat(num_ranks)
    local = Routes(expert_R.repeat_interleave(receive_Pe[sources].flatten()))
    input_splits, output_splits = send_Pe.sum(1).tolist(), receive_Pe.sum(1).tolist()
    num_kept, input_splits[rank], output_splits[rank] = input_splits[rank], 0, 0
    return AllToAllSplits(num_kept, input_splits, output_splits, make_plan(local, num_local_experts))


@dataclass(frozen=True)
class Extent:
    """Elements [begin, begin + size) of a local parameter, flattened, are [offset, offset + size) of a tensor `name`.

    The tensor is that of the whole model on one device, flattened; of experts, the stack of all of them.
    """

    begin: int
    size: int
    name: str
    offset: int


class ExpertParallelExperts(AutoEPMoELayer):
    """Drop-in for models.experts.Experts that holds E / ep_size experts and exchanges rows with its group.

    Rank p of the group holds the experts [p * E / P, (p + 1) * E / P). Every rank must call plan() and forward()
    equally often: both are collective over the expert-parallel group.
    """

    def __init__(self, whole: Experts, *, ep_size: int):
        nn.Module.__init__(self)  # not AutoEPMoELayer's: see the top of this file
        self.num_experts = whole.num_experts
        self.num_local_experts = whole.num_experts // ep_size
        self.ep_size = ep_size
        self.ep_group_name = f"ep_size_{ep_size}"
        self.ep_group = groups._get_expert_parallel_group(self.ep_group_name)
        # From the group, not rank % ep_size: DeepSpeed may lay groups out either way.
        self.ep_rank = groups._get_expert_parallel_rank(self.ep_group_name)
        self.combine_impl = "weighted_sum"  # read by AutoEPMoELayer.set_deepspeed_parallelism
        self.comm_backend = "comm"
        self.expert_placement_descriptor = legacy_uniform_autoep_placement_descriptor(
            self.num_experts, self.num_local_experts, ep_size
        )
        self.experts = _LocalExperts(whole, self.num_local_experts)
        self.act = whole.act  # MultiHash applies it between its two rounds
        self.tag_parameters()

    def initialize(self, weights: dict[str, torch.Tensor]) -> None:
        """As models.experts.Experts.initialize."""
        self.experts.initialize(weights)

    @property
    def expert_ids(self) -> range:
        """Global ids of this rank's experts."""
        return range(self.ep_rank * self.num_local_experts, (self.ep_rank + 1) * self.num_local_experts)

    def tag_parameters(self) -> None:
        """Mark the parameters as experts for DeepSpeed. The marks live on Parameter objects and are lost with them."""
        for parameter in self.experts.parameters():
            parameter.allreduce = False
            parameter.group_name = self.ep_group_name
            parameter.ds_zero_placement_family = "autoep_expert"
            parameter.ds_zero_partition_group_name = self.ep_group_name
            setattr(parameter, DS_AUTOEP_UC_META, self._placement(parameter))

    def plan(self, routes: Routes) -> Plan:
        """Collective over the expert-parallel group, and it waits, as train/prefetch/route_ahead.py does not."""
        plan = make_plan(routes, self.num_experts, first=self.expert_ids)
        send_Pe = torch.tensor(plan.tokens_per_expert, device=plan.order_N.device).view(
            self.ep_size, self.num_local_experts
        )
        receive_Pe = torch.empty_like(send_Pe)
        dist.all_to_all_single(receive_Pe, send_Pe, group=self.ep_group)
        return replace(plan, exchange=make_exchange(send_Pe, receive_Pe, rank=self.ep_rank))

    def forward(self, hidden_TD: torch.Tensor, plan: Plan, segment: Segment | None = None) -> torch.Tensor:
        """Tokens [T, D] -> the outputs of their experts; with a segment, of that part alone."""
        exchange = plan.exchange
        arrived = AllToAll.apply(dispatch(hidden_TD, plan), exchange, self.ep_group)
        outputs = self.experts(arrived, exchange.local, segment)
        return combine(AllToAll.apply(outputs, exchange.reversed, self.ep_group), plan)

    def _placement(self, parameter: nn.Parameter) -> dict:
        """Which experts this shard holds, in the words of DeepSpeed's checkpoints, which refuse a shard without it."""
        shape = [self.num_experts, *parameter.shape[1:]]
        return {
            AUTOEP_EXPERT_PLACEMENT: self.expert_placement_descriptor,
            AFFINE_MAP: autoep_placement_to_affine_map(self.expert_placement_descriptor, shape).to_dict(),
            AUTOEP_PARAM_LOGICAL_SHAPE: shape,
            AUTOEP_PARAM_EP_RANK: self.ep_rank,
            AUTOEP_PARAM_LOCAL_EXPERTS: list(autoep_experts_for_rank(self.expert_placement_descriptor, self.ep_rank)),
        }


class _LocalExperts(nn.Module):
    """The experts of one rank under DeepSpeed's names: w1 up_proj, w2 down_proj, w3 all vectors side by side."""

    def __init__(self, whole: Experts, num_local_experts: int):
        super().__init__()
        self.num_local_experts = num_local_experts
        self._compute, self._initialize = whole.compute, whole.initialize  # methods: not registered as submodules
        self._shapes = {name: parameter.shape[1:] for name, parameter in whole.named_parameters()}
        self._vectors = [name for name in self._shapes if name not in ("up_proj", "down_proj")]
        self._vector_sizes = [self._shapes[name].numel() for name in self._vectors]
        new = whole.up_proj.new_empty
        self.w1 = nn.Parameter(new(num_local_experts, *_as_matrix(self._shapes["up_proj"])))
        self.w2 = nn.Parameter(new(num_local_experts, *_as_matrix(self._shapes["down_proj"])))
        self.w3 = nn.Parameter(new(num_local_experts, 1, sum(self._vector_sizes)))

    def weights(self) -> dict[str, torch.Tensor]:
        """The tensors [e, ...] under their names in models.experts, as views."""
        vectors = dict(zip(self._vectors, self.w3.squeeze(1).split(self._vector_sizes, dim=1), strict=True))
        packed = {"up_proj": self.w1, "down_proj": self.w2, **vectors}
        return {name: packed[name].view(len(self.w1), *shape) for name, shape in self._shapes.items()}

    def extents(self, *, first_expert: int) -> dict[str, list[Extent]]:
        """Of w1, w2 and w3, under the tensors' names in models.experts; the experts here begin with first_expert."""
        num_experts, extents = self.num_local_experts, {}
        for parameter, name in (("w1", "up_proj"), ("w2", "down_proj")):
            size = self._shapes[name].numel()
            extents[parameter] = [Extent(0, num_experts * size, name, first_expert * size)]
        row = sum(self._vector_sizes)
        begins = [sum(self._vector_sizes[:index]) for index in range(len(self._vectors))]
        extents["w3"] = [
            Extent(local * row + begin, size, name, (first_expert + local) * size)
            for local in range(num_experts)
            for name, begin, size in zip(self._vectors, begins, self._vector_sizes, strict=True)
        ]
        return extents

    def initialize(self, weights: dict[str, torch.Tensor]) -> None:
        self._initialize(weights)

    def forward(self, hidden_TD: torch.Tensor, plan: Plan, segment: Segment | None) -> torch.Tensor:
        return self._compute(hidden_TD, plan, self.weights(), segment)


def _as_matrix(shape: torch.Size) -> tuple[int, int]:
    """DeepSpeed takes matrices per expert: stacked sublayers [S, rows, columns] become [S * rows, columns]."""
    return shape[:-1].numel(), shape[-1]


class AllToAll(torch.autograd.Function):
    """Uneven all-to-all of the rows that change rank, behind those that stay; the gradient travels the other way."""

    @staticmethod
    def forward(ctx, rows, exchange, group):
        ctx.exchange, ctx.group = exchange, group
        return _all_to_all(rows, exchange, group)

    @staticmethod
    def backward(ctx, grad):
        return _all_to_all(grad, ctx.exchange.reversed, ctx.group), None, None


def _all_to_all(rows: torch.Tensor, exchange: AllToAllSplits, group) -> torch.Tensor:
    kept, input_splits, output_splits = exchange.num_kept, exchange.input_splits, exchange.output_splits
    arrived = rows.new_empty(kept + sum(output_splits), *rows.shape[1:])
    arrived[:kept] = rows[:kept]
    dist.all_to_all_single(arrived[kept:], rows[kept:].contiguous(), output_splits, input_splits, group=group)
    return arrived


def parameter_extents(model: nn.Module) -> dict[str, list[Extent]]:
    """Where the elements of each local parameter lie in the whole model, by the parameter's name here."""
    extents = {name: [Extent(0, _numel(p), name, 0)] for name, p in model.named_parameters()}
    for name, module in model.named_modules():
        if isinstance(module, ExpertParallelExperts):
            for parameter, found in module.experts.extents(first_expert=module.expert_ids.start).items():
                extents[f"{name}.experts.{parameter}"] = [
                    replace(extent, name=f"{name}.{extent.name}") for extent in found
                ]
    return extents


def _numel(parameter: nn.Parameter) -> int:
    return getattr(parameter, "ds_numel", parameter.numel())  # ZeRO 3 leaves an empty tensor behind


def stacked_expert_tensors(experts: nn.Module) -> dict[str, torch.Tensor]:
    """The local experts' tensors [e, ...] under their names in models.experts, as views."""
    if isinstance(experts, ExpertParallelExperts):
        return experts.experts.weights()
    return dict(experts.named_parameters())


def tag_experts(model: nn.Module) -> None:
    """Repeat the tags of every expert parameter, after anything that made new Parameter objects."""
    for module in model.modules():
        if isinstance(module, ExpertParallelExperts):
            module.tag_parameters()


def assert_experts_are_tagged(model: nn.Module) -> None:
    """RuntimeError where a copy or assignment dropped the tags: DeepSpeed would average experts as shared weights."""
    for name, module in model.named_modules():
        if isinstance(module, ExpertParallelExperts):
            for parameter_name, parameter in module.experts.named_parameters():
                if getattr(parameter, "allreduce", True) or parameter.group_name != module.ep_group_name:
                    raise RuntimeError(
                        f"{name}.experts.{parameter_name} lost its expert-parallel tags (deepcopy and "
                        "load_state_dict(assign=True) drop them); call tag_experts(model)"
                    )


def _refuse_buffers(name: str, experts: nn.Module) -> None:
    # DeepSpeed leaves buffers below a name that contains "expert" out of its checkpoints, silently.
    buffers = [buffer for buffer, _ in experts.named_buffers()]
    if buffers:
        raise RuntimeError(f"{name} holds buffers {buffers}, which DeepSpeed's checkpoints lose; keep them outside")
