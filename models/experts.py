"""Experts: E feed-forwards of one shape in stacked weights, applied to rows that are already in expert order."""

import torch
from torch import nn
from transformers.activations import ACT2FN

from .dispatch import Plan, make_plan
from .routes import Routes


class Experts(nn.Module):
    """E feed-forwards x -> act(x @ up + up_bias) @ down + down_bias, as GPT-2's, all on this device."""

    def __init__(self, config):
        super().__init__()
        num_experts, width, hidden = config.num_experts, config.n_embd, config.ffn_size
        self.num_experts = num_experts
        self.up_proj = nn.Parameter(torch.empty(num_experts, width, hidden))
        self.up_proj_bias = nn.Parameter(torch.empty(num_experts, hidden))
        self.down_proj = nn.Parameter(torch.empty(num_experts, hidden, width))
        self.down_proj_bias = nn.Parameter(torch.empty(num_experts, width))
        self.act = ACT2FN[config.activation_function]

    @property
    def expert_ids(self) -> range:
        """Global ids of the experts on this device: all of them."""
        return range(self.num_experts)

    def plan(self, routes: Routes) -> Plan:
        return make_plan(routes, self.num_experts)

    def forward(self, rows_ND: torch.Tensor, plan: Plan) -> torch.Tensor:
        """Rows [N, D] in expert order -> the experts' outputs [N, D], same order."""
        weights = (self.up_proj, self.up_proj_bias, self.down_proj, self.down_proj_bias)
        return expert_feed_forward(rows_ND, plan.rows_E, *weights, act=self.act)


def expert_feed_forward(rows_ND, rows_E, up_EDH, up_bias_EH, down_EHD, down_bias_ED, *, act) -> torch.Tensor:
    """Apply expert e to the e-th run of rows; rows_E are host integers that sum to N.

    An idle expert multiplies an empty matrix: its gradient is zero, not missing, which ZeRO relies on.
    """
    # unbind, not up_EDH[e] in the loop: its backward stacks once where indexing makes E full-size zeros.
    experts = zip(up_EDH.unbind(), up_bias_EH.unbind(), down_EHD.unbind(), down_bias_ED.unbind(), strict=True)
    outputs = [
        torch.addmm(down_bias, act(torch.addmm(up_bias, rows, up)), down)
        for rows, (up, up_bias, down, down_bias) in zip(rows_ND.split(rows_E), experts, strict=True)
    ]
    return torch.cat(outputs)
