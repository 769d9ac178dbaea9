"""DeepSpeed's own MoE layer as variants of the benchmark, with the routes of the hash layer."""

import torch
from deepspeed.moe.layer import MoE
from deepspeed.moe.sharded_moe import TopKGate, top1gating
from torch import nn
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

from launch.benchmark.layers.case import Case
from launch.benchmark.layers.ours import Variant, share_weights

LARGE = 1e4  # softmax of one-hot * LARGE is that one-hot exactly, so gate weights are 1


class GivenRoutesGate(TopKGate):
    """DeepSpeed's top-1 gate, with given routes in place of a linear layer's logits.

    It skips the linear layer, its gradient and that of the gate weights, which DeepSpeed otherwise computes.
    """

    def __init__(self, expert_T: torch.Tensor, num_experts: int, **options):
        super().__init__(1, num_experts, min_capacity=0, use_rts=False, **options)
        del self.wg
        self.logits_TE = nn.functional.one_hot(expert_T, num_experts).float() * LARGE

    def forward(self, input, used_token=None, sparse_routes=False, use_tutel=False):
        gated = top1gating(
            self.logits_TE, self.capacity_factor, self.min_capacity, used_token, None,
            self.drop_tokens, self.use_rts, self.ep_group, sparse_routes, use_tutel,
        )  # fmt: skip
        self.expert_KT = gated[3]  # -1 for a dropped token
        return gated


class _DeepSpeed(Variant):
    """deepspeed.moe.layer.MoE with k=1; its experts are GPT-2 feed-forwards with the hash layer's weights."""

    drop_tokens: bool

    def __init__(self, case: Case):
        super().__init__()
        config, options = case.config, {"drop_tokens": self.drop_tokens, "capacity_factor": 1.0}
        with torch.device("meta"):
            expert = _Expert(config.intermediate_size, config)
            self.moe = MoE(config.hidden_size, expert, config.num_experts, case.ep_size, k=1, use_rts=False, **options)
        self.moe.deepspeed_moe.gate = GivenRoutesGate(case.expert_T, config.num_experts, **options)
        for local, ffn in enumerate(self.moe.deepspeed_moe.experts.deepspeed_experts):
            share_weights(ffn, case, local)
        self.moe.set_deepspeed_parallelism()

    def forward(self, hidden_BSD):
        return self.moe(hidden_BSD)[0]

    def dropped_share(self) -> float:
        return (self.moe.deepspeed_moe.gate.expert_KT < 0).float().mean().item()


class _Expert(GPT2MLP):
    """With several ranks DeepSpeed passes non-contiguous inputs, which GPT-2's linear layers do not accept."""

    def forward(self, hidden_states):
        return super().forward(hidden_states.contiguous())


class DeepSpeedDropless(_DeepSpeed):
    """drop_tokens=False: every expert is padded to the fullest expert of all ranks."""

    drop_tokens = False


class DeepSpeedCapacity(_DeepSpeed):
    """Capacity factor 1: every expert takes T / E tokens of each rank and drops the rest."""

    drop_tokens = True
    equals = None
