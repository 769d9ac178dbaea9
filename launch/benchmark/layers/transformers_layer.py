"""transformers' use_experts_implementation as variants of the benchmark, with the routes of the hash layer."""

from types import SimpleNamespace

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.integrations.moe import use_experts_implementation

from launch.benchmark.layers.case import Case
from launch.benchmark.layers.ours import Variant


@use_experts_implementation(has_gate=False, has_bias=True, is_transposed=True)
class GPT2Experts(nn.Module):
    """GPT-2 feed-forwards in transformers' stacked layout; forward is the "eager" one of transformers' models."""

    def __init__(self, config, case: Case):
        super().__init__()
        self.num_experts = case.config.num_experts
        self.act_fn = ACT2FN[case.config.activation_function]
        for name, tensor in case.weights.items():
            setattr(self, name, nn.Parameter(tensor))

    def forward(self, hidden_states, top_k_index, top_k_weights):
        outputs = torch.zeros_like(hidden_states)
        with torch.no_grad():
            mask_EKT = nn.functional.one_hot(top_k_index, num_classes=self.num_experts).permute(2, 1, 0)
            hit = (mask_EKT.sum(dim=(-1, -2)) > 0).nonzero()
        for (expert,) in hit:
            choice, token = torch.where(mask_EKT[expert])
            hidden_ND = torch.addmm(self.up_proj_bias[expert], hidden_states[token], self.up_proj[expert])
            hidden_ND = torch.addmm(self.down_proj_bias[expert], self.act_fn(hidden_ND), self.down_proj[expert])
            outputs.index_add_(0, token, hidden_ND * top_k_weights[token, choice, None])
        return outputs


class _Transformers(Variant):
    """One expert per token, with weight 1, in one of transformers' implementations."""

    implementation: str

    def __init__(self, case: Case):
        super().__init__()
        self.experts = GPT2Experts(SimpleNamespace(_experts_implementation=self.implementation), case)
        self.expert_TK = case.expert_T.unsqueeze(1)
        self.weight_TK = case.hidden_BSD.new_ones(case.num_tokens, 1)

    def forward(self, hidden_BSD):
        return self.experts(hidden_BSD.flatten(0, 1), self.expert_TK, self.weight_TK).view_as(hidden_BSD)


class TransformersEager(_Transformers):
    implementation = "eager"


class TransformersGroupedMM(_Transformers):
    implementation = "grouped_mm"
