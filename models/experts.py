"""Experts: E feed-forwards of one shape in stacked weights, each applied to the tokens that a plan gives it."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN

from .dispatch import DispatchPlan, make_plan
from .grouped import grouped_feed_forward, per_expert
from .routes import Routes


@dataclass(frozen=True)
class Segment:
    """One of the `count` equal parts of one matrix, which is what MultiHash applies at a time.

    matrix: "up" (d -> D / count) or "down" (D -> d / count). index: which part of its output.
    """

    matrix: str
    index: int
    count: int


class Experts(nn.Module):
    """E feed-forwards x -> act(x @ up + up_bias) @ down + down_bias, as GPT-2's, all on this device."""

    def __init__(self, config):
        super().__init__()
        num_experts, width, hidden = config.num_experts, config.hidden_size, config.intermediate_size
        self.num_experts = num_experts
        self.up_proj = nn.Parameter(torch.empty(num_experts, width, hidden))
        self.up_proj_bias = nn.Parameter(torch.empty(num_experts, hidden))
        self.down_proj = nn.Parameter(torch.empty(num_experts, hidden, width))
        self.down_proj_bias = nn.Parameter(torch.empty(num_experts, width))
        # The function, not the module: ZeRO 3 demands the same module calls on every rank, an idle expert makes none.
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

    def compute(self, tokens: torch.Tensor, plan: DispatchPlan, weights: dict, segment: Segment | None) -> torch.Tensor:
        """As forward(), with stacked weights from elsewhere under the names of this module's."""
        up, down = (weights[f"{name}_proj"] for name in ("up", "down"))
        up_bias, down_bias = (weights[f"{name}_proj_bias"] for name in ("up", "down"))
        if segment is None:
            return grouped_feed_forward(tokens, plan, up, up_bias, down, down_bias, act=self.act)
        matrix, bias = (up, up_bias) if segment.matrix == "up" else (down, down_bias)
        part = matrix.chunk(segment.count, dim=2)[segment.index]
        return per_expert(_linear, tokens, plan, part, bias.chunk(segment.count, dim=1)[segment.index])

    def initialize(self, weights: dict) -> None:
        """Draw the weights of one expert, or of a stack of them, as GPT-2 draws its feed-forward's."""
        init.normal_(weights["up_proj"], std=self.up_std)
        init.normal_(weights["down_proj"], std=self.down_std)
        init.zeros_(weights["up_proj_bias"])
        init.zeros_(weights["down_proj_bias"])


class StackedExperts(Experts):
    """E stacks of pre-norm residual feed-forwards x + down(act(up(norm(x)))), the experts of BASE layers.

    Weights have a dimension for the S sublayers after that of the experts (Lewis et al., 2021; paper, appendix B.2).
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

    def compute(self, tokens: torch.Tensor, plan: DispatchPlan, weights: dict, segment: Segment | None) -> torch.Tensor:
        return per_expert(self._stack, tokens, plan, *(weights[name] for name, _ in self.named_parameters()))

    def initialize(self, weights: dict) -> None:
        """As BASE layers: the last matrix is zero, so that a new sparse layer begins as the identity."""
        super().initialize(weights)
        init.zeros_(weights["down_proj"])
        init.ones_(weights["norm_weight"])
        init.zeros_(weights["norm_bias"])

    def _stack(self, rows, *weights):
        for up, up_bias, down, down_bias, norm_weight, norm_bias in zip(*weights, strict=True):
            normed = nn.functional.layer_norm(rows, rows.shape[-1:], norm_weight, norm_bias, self.norm_epsilon)
            rows = rows + _linear(self.act(_linear(normed, up, up_bias)), down, down_bias)
        return rows


def _linear(rows, weight, bias):
    return torch.addmm(bias, rows, weight)
