"""Experts: E feed-forwards of one shape in stacked weights, each applied to its tokens by a dispatch plan."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN

from .dispatch import DispatchPlan, make_plan
from .grouped import ExpertWeights, grouped_feed_forward, per_expert
from .routes import Routes


@dataclass(frozen=True)
class Segment:
    """One of the `count` equal parts of one matrix; each hash of MultiHash applies one of them.

    matrix: "up" (D -> H / count) or "down" (H -> D / count). index: which part of its output.
    """

    matrix: str
    index: int
    count: int


class Experts(nn.Module):
    """E feed-forwards x -> act(x @ up + up_bias) @ down + down_bias like GPT-2's, all on this device."""

    def __init__(self, config):
        super().__init__()
        num_experts, hidden_size, intermediate_size = config.num_experts, config.hidden_size, config.intermediate_size
        self.num_experts = num_experts
        self.up_proj = nn.Parameter(torch.empty(num_experts, hidden_size, intermediate_size))
        self.up_proj_bias = nn.Parameter(torch.empty(num_experts, intermediate_size))
        self.down_proj = nn.Parameter(torch.empty(num_experts, intermediate_size, hidden_size))
        self.down_proj_bias = nn.Parameter(torch.empty(num_experts, hidden_size))
        # The function, not the module: ZeRO 3 requires the same module calls on every rank; an idle expert makes none.
        self.act = ACT2FN[config.activation_function].forward
        # GPT-2 scales the last matrix of each residual branch by 1 / sqrt(number of branches).
        self.up_std = config.initializer_range
        self.down_std = config.initializer_range / math.sqrt(2 * config.num_hidden_layers)

    @property
    def expert_ids(self) -> range:
        """Global ids of the experts on this device: all of them."""
        return range(self.num_experts)

    def plan(self, routes: Routes) -> DispatchPlan:
        return make_plan(routes, self.num_experts)

    def forward(self, hidden_TD: torch.Tensor, plan: DispatchPlan, segment: Segment | None = None) -> torch.Tensor:
        """Tokens [T, D] -> the outputs of their experts; with a segment, of that part alone."""
        return self.compute(hidden_TD, plan, dict(self.named_parameters()), segment)

    def compute(self, hidden_TD, plan: DispatchPlan, weights: dict, segment: Segment | None) -> torch.Tensor:
        """Like forward(), with stacked weights from elsewhere, named like those of this module."""
        if segment is None:
            names = ("up_proj", "up_proj_bias", "down_proj", "down_proj_bias")
            return grouped_feed_forward(
                hidden_TD, plan, ExpertWeights(*(weights[name] for name in names)), act=self.act
            )  # fmt: skip
        matrix, bias = weights[f"{segment.matrix}_proj"], weights[f"{segment.matrix}_proj_bias"]
        part = matrix.chunk(segment.count, dim=2)[segment.index]
        return per_expert(_linear, hidden_TD, plan, part, bias.chunk(segment.count, dim=1)[segment.index])

    def initialize(self, weights: dict) -> None:
        """Draw the weights of one expert, or of a stack of them, as GPT-2 draws those of its feed-forward."""
        init.normal_(weights["up_proj"], std=self.up_std)
        init.normal_(weights["down_proj"], std=self.down_std)
        init.zeros_(weights["up_proj_bias"])
        init.zeros_(weights["down_proj_bias"])


class StackedExperts(Experts):
    """E stacks of pre-norm residual feed-forwards x + down(act(up(norm(x)))), the experts of BASE layers.

    The second dimension of their weights is that of the S sublayers (Lewis et al., 2021; paper, appendix B.2).
    """

    def __init__(self, config):
        super().__init__(config)
        for name, parameter in list(self.named_parameters()):
            experts, *shape = parameter.shape
            setattr(self, name, nn.Parameter(parameter.new_empty(experts, config.num_sublayers, *shape)))
        norm_shape = (config.num_experts, config.num_sublayers, config.hidden_size)
        self.norm_weight = nn.Parameter(torch.empty(norm_shape))
        self.norm_bias = nn.Parameter(torch.empty(norm_shape))
        self.norm_epsilon = config.layer_norm_epsilon

    def compute(self, hidden_TD, plan: DispatchPlan, weights: dict, segment: Segment | None) -> torch.Tensor:
        return per_expert(self._stack, hidden_TD, plan, *(weights[name] for name, _ in self.named_parameters()))

    def initialize(self, weights: dict) -> None:
        """Like BASE layers: the last matrix is zero, so that a new sparse layer begins as the identity."""
        super().initialize(weights)
        init.zeros_(weights["down_proj"])
        init.ones_(weights["norm_weight"])
        init.zeros_(weights["norm_bias"])

    def _stack(self, run, *weights):
        for up, up_bias, down, down_bias, norm_weight, norm_bias in zip(*weights, strict=True):
            normed = nn.functional.layer_norm(run, run.shape[-1:], norm_weight, norm_bias, self.norm_epsilon)
            run = run + _linear(self.act(_linear(normed, up, up_bias)), down, down_bias)
        return run


def _linear(run, weight, bias):
    return torch.addmm(bias, run, weight)
