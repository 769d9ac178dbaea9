"""Expert parallelism from outside: replace a model's Experts by their share on this rank, in DeepSpeed's groups.

DeepSpeed recognises expert parameters by isinstance alone. AutoEPMoELayer is the base class that ZeRO 0 to 3 and
stacked weights accept: it requires exactly three 3-D parameters `experts.w1/w2/w3`, and no call of its constructor,
which would build a learned router.
"""

from dataclasses import replace

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

from models.dispatch import DispatchPlan, combine, dispatch, make_plan
from models.experts import Experts, Segment
from models.routes import Routes
from models.sparse_ffn import SparseFFN
from train.parallel.all_to_all import AllToAll, make_splits
from train.parallel.packed_experts import PackedExperts
from train.parallel.recomputation import received_once


def parallelize_experts(model: nn.Module, *, ep_size: int) -> None:
    """Replace the Experts of every sparse layer by this rank's share; with ep_size 1 the model stays as it is.

    Collective over all ranks: creates DeepSpeed's expert-parallel groups. Works on meta tensors; the shares
    are allocated empty on the same device and must be initialised.
    """
    if ep_size == 1:
        return
    groups._create_expert_and_data_parallel(ep_size)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, SparseFFN):
            layer.experts = ExpertParallelExperts(layer.experts, ep_size=ep_size)
            _refuse_buffers(f"{name}.experts", layer.experts)


class ExpertParallelExperts(AutoEPMoELayer):
    """Drop-in for models.experts.Experts that holds E / ep_size experts, and sends tokens to those of other ranks.

    Rank p of the group holds the experts [p * E / P, (p + 1) * E / P). plan() and forward() are collective over the
    expert-parallel group: every rank must call them equally often.
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
        self.experts = PackedExperts(whole, self.expert_ids)
        self.act = whole.act  # MultiHash applies it between its two rounds
        self.tag_parameters()

    def initialize(self, weights: dict[str, torch.Tensor]) -> None:
        """Like models.experts.Experts.initialize."""
        self.experts.initialize(weights)

    @property
    def expert_ids(self) -> range:
        """Global ids of this rank's experts."""
        return range(self.ep_rank * self.num_local_experts, (self.ep_rank + 1) * self.num_local_experts)

    def tag_parameters(self) -> None:
        """Tag the parameters as experts for DeepSpeed. The tags live on Parameter objects and are lost with them."""
        for parameter in self.experts.parameters():
            parameter.allreduce = False
            parameter.group_name = self.ep_group_name
            parameter.ds_zero_placement_family = "autoep_expert"
            parameter.ds_zero_partition_group_name = self.ep_group_name
            setattr(parameter, DS_AUTOEP_UC_META, self._placement(parameter))

    def plan(self, routes: Routes) -> DispatchPlan:
        """Collective over the expert-parallel group. The device waits for it, which route_ahead.py avoids."""
        plan = make_plan(routes, self.num_experts, first=self.expert_ids)
        send_Pe = torch.tensor(plan.tokens_per_expert, device=plan.order_N.device).view(
            self.ep_size, self.num_local_experts
        )
        receive_Pe = received_once(lambda: self._receive_counts(send_Pe))
        return replace(plan, splits=make_splits(send_Pe, receive_Pe, rank=self.ep_rank))

    def _receive_counts(self, send_Pe: torch.Tensor) -> torch.Tensor:
        receive_Pe = torch.empty_like(send_Pe)
        dist.all_to_all_single(receive_Pe, send_Pe, group=self.ep_group)
        return receive_Pe

    def forward(self, hidden_TD: torch.Tensor, plan: DispatchPlan, segment: Segment | None = None) -> torch.Tensor:
        """Tokens [T, D] -> the outputs of their experts; with a segment, of that part alone."""
        splits = plan.splits
        arrived = AllToAll.apply(dispatch(hidden_TD, plan), splits, self.ep_group)
        outputs = self.experts(arrived, splits.arrivals, segment)
        return combine(AllToAll.apply(outputs, splits.reversed, self.ep_group), plan)

    def _placement(self, parameter: nn.Parameter) -> dict:
        """The experts of this shard in the form of DeepSpeed's checkpoints, which refuse a shard without it."""
        shape = [self.num_experts, *parameter.shape[1:]]
        return {
            AUTOEP_EXPERT_PLACEMENT: self.expert_placement_descriptor,
            AFFINE_MAP: autoep_placement_to_affine_map(self.expert_placement_descriptor, shape).to_dict(),
            AUTOEP_PARAM_LOGICAL_SHAPE: shape,
            AUTOEP_PARAM_EP_RANK: self.ep_rank,
            AUTOEP_PARAM_LOCAL_EXPERTS: list(autoep_experts_for_rank(self.expert_placement_descriptor, self.ep_rank)),
        }


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
    """RuntimeError if a copy or assignment dropped the tags: DeepSpeed would average experts as shared weights."""
    for name, module in model.named_modules():
        if isinstance(module, ExpertParallelExperts):
            for parameter_name, parameter in module.experts.named_parameters():
                if getattr(parameter, "allreduce", True) or parameter.group_name != module.ep_group_name:
                    raise RuntimeError(
                        f"{name}.experts.{parameter_name} lost its expert-parallel tags (deepcopy and "
                        "load_state_dict(assign=True) drop them); call tag_experts(model)"
                    )


def _refuse_buffers(name: str, experts: nn.Module) -> None:
    # DeepSpeed silently omits buffers below a name that contains "expert" from its checkpoints.
    buffers = [buffer for buffer, _ in experts.named_buffers()]
    if buffers:
        raise RuntimeError(f"{name} holds buffers {buffers}, which DeepSpeed's checkpoints lose; keep them outside")
