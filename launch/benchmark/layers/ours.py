"""The variants of the benchmark: layers that route the same tokens to the same experts in different ways."""

import copy

import torch
from torch import nn
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

from launch.benchmark.layers.case import Case
from models.learned_ffn import LearnedFFN


class Variant(nn.Module):
    """A timed layer: forward(hidden [B, S, D]) -> outputs of the same shape.

    equals: the variant whose outputs and gradients it must have; None if it computes something else.
    """

    equals: str | None = "hash"

    def dropped_share(self) -> float:
        """The share of this rank's tokens that the last pass dropped."""
        return 0.0


class Dense(Variant):
    """GPT-2's feed-forward: every token through the same weights, which are random since values do not affect time."""

    equals = None

    def __init__(self, case: Case):
        super().__init__()
        self.mlp = GPT2MLP(case.config.intermediate_size, case.config)
        for parameter in self.mlp.parameters():
            nn.init.normal_(parameter, std=case.config.initializer_range)
        self.to(case.hidden_BSD)

    def forward(self, hidden_BSD):
        return self.mlp(hidden_BSD)


class Hash(Variant):
    """This project's layer, with dispatch plans made ahead; make_plans is timed separately."""

    equals = None

    def __init__(self, case: Case):
        super().__init__()
        self.layer, self.plans, self.context = case.layer, case.plans, case.context

    def forward(self, hidden_BSD):
        return self.layer(hidden_BSD, self.plans)[0]

    def make_plans(self) -> None:
        self.plans = self.layer.plan(self.context)


class LearnedTop1(Variant):
    """A Switch layer without a capacity limit over this project's experts, losses included (models/router_switch.py).

    Routes depend on hidden states, so the forward pass makes the dispatch plan and waits for it.
    """

    equals = "learned_loop"

    def __init__(self, case: Case):
        super().__init__()
        config = copy.deepcopy(case.config)
        config.router, config.hash_keys = "switch", []
        with torch.device("meta"):
            self.layer = LearnedFFN(config, 0)
        self.layer.experts = case.layer.experts
        self.layer.router.to_empty(device=case.hidden_BSD.device).to(case.hidden_BSD.dtype)
        torch.manual_seed(0)
        self.layer.router.gate.initialize()

    def forward(self, hidden_BSD):
        return self.layer(hidden_BSD, plans=[])[0]


class PerExpertLoop(Variant):
    """A plain loop in the style of the authors' code: select an expert's tokens, apply it, write the results back."""

    def __init__(self, case: Case):
        super().__init__()
        self.ffns = shared_ffns(case)
        self.expert_T = case.expert_T

    def forward(self, hidden_BSD):
        return self.loop(hidden_BSD.flatten(0, 1), self.expert_T).view_as(hidden_BSD)

    def loop(self, hidden_TD, expert_T):
        outputs_TD = torch.zeros_like(hidden_TD)
        for expert, ffn in enumerate(self.ffns):
            (token_N,) = (expert_T == expert).nonzero(as_tuple=True)
            outputs_TD[token_N] = ffn(hidden_TD[token_N])
        return outputs_TD


class LearnedLoop(PerExpertLoop):
    """The reference of LearnedTop1 as a plain loop, not timed."""

    equals = None

    def __init__(self, case: Case):
        super().__init__(case)
        self.learned = LearnedTop1(case)

    def forward(self, hidden_BSD):
        hidden_TD = hidden_BSD.flatten(0, 1)
        routes = self.learned.layer.router.route(hidden_TD, None).routes
        outputs_TD = self.loop(hidden_TD, routes.expert_N) * routes.weight_N.to(hidden_BSD.dtype).unsqueeze(1)
        return outputs_TD.view_as(hidden_BSD)


def shared_ffns(case: Case) -> nn.ModuleList:
    """This rank's experts as GPT-2 feed-forwards that share memory with the hash layer's weights."""
    with torch.device("meta"):
        ffns = nn.ModuleList(GPT2MLP(case.config.intermediate_size, case.config) for _ in case.local_experts)
    for local, ffn in enumerate(ffns):
        share_weights(ffn, case, local)
    return ffns


def share_weights(ffn: GPT2MLP, case: Case, local: int) -> None:
    """Let the feed-forward's parameters share memory with local expert number `local`."""
    for linear, name in ((ffn.c_fc, "up_proj"), (ffn.c_proj, "down_proj")):
        linear.weight = nn.Parameter(case.weights[name][local])
        linear.bias = nn.Parameter(case.weights[f"{name}_bias"][local])
