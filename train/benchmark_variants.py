"""The variants of a benchmark: layers that give the same tokens to the same experts, each in its own way."""

import torch
from torch import nn
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

from models.routes import Routes
from train.benchmark_case import Case


class Variant(nn.Module):
    """What is timed: forward(hidden [B, S, D]) -> outputs of the same shape.

    equals: the name of the variant whose outputs and gradients it must have; None where it computes something else.
    """

    equals: str | None = "hash"

    def dropped_share(self) -> float:
        """The share of this rank's tokens that no expert saw in the last pass."""
        return 0.0


class Dense(Variant):
    """GPT-2's feed-forward: every token through the same weights, drawn anew, since their values cost no time."""

    equals = None

    def __init__(self, case: Case):
        super().__init__()
        self.mlp = GPT2MLP(case.config.ffn_size, case.config)
        for parameter in self.mlp.parameters():
            nn.init.normal_(parameter, std=case.config.initializer_range)
        self.to(case.hidden_BSD)

    def forward(self, hidden_BSD):
        return self.mlp(hidden_BSD)


class Hash(Variant):
    """This project's layer with plans made ahead; make_plans is timed by itself."""

    equals = None

    def __init__(self, case: Case):
        super().__init__()
        self.layer, self.plans, self.context = case.layer, case.plans, case.context

    def forward(self, hidden_BSD):
        return self.layer(hidden_BSD, self.plans)

    def make_plans(self) -> None:
        self.plans = self.layer.plan(self.context)


class LearnedTop1(Variant):
    """A learned router over this project's experts: linear gate, softmax in float32, outputs times the gate (Switch).

    Routes follow from hidden states, so the plan is made in the forward pass, which waits for it.
    """

    equals = "learned_loop"

    def __init__(self, case: Case):
        super().__init__()
        self.layer = case.layer
        torch.manual_seed(0)
        self.gate = nn.Linear(case.config.n_embd, case.config.num_experts, bias=False).to(case.hidden_BSD)

    def route(self, tokens_TD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The gate weight and the expert of each token, [T] each."""
        logits_TE = nn.functional.linear(tokens_TD.float(), self.gate.weight.float())
        return logits_TE.softmax(dim=-1).max(dim=-1)

    def forward(self, hidden_BSD):
        gate_T, expert_T = self.route(hidden_BSD.flatten(0, 1))
        outputs_BSD = self.layer(hidden_BSD, [self.layer.experts.plan(Routes(expert_T))])
        return outputs_BSD * gate_T.to(outputs_BSD.dtype).view(*hidden_BSD.shape[:2], 1)


class PerExpertLoop(Variant):
    """A plain loop, the style of the authors' code: select an expert's tokens, apply its module, write them back."""

    def __init__(self, case: Case):
        super().__init__()
        self.ffns = shared_ffns(case)
        self.expert_T = case.expert_T

    def forward(self, hidden_BSD):
        return self.loop(hidden_BSD.flatten(0, 1), self.expert_T).view_as(hidden_BSD)

    def loop(self, tokens_TD, expert_T):
        outputs_TD = torch.zeros_like(tokens_TD)
        for expert, ffn in enumerate(self.ffns):
            (token_N,) = (expert_T == expert).nonzero(as_tuple=True)
            outputs_TD[token_N] = ffn(tokens_TD[token_N])
        return outputs_TD


class LearnedLoop(PerExpertLoop):
    """What LearnedTop1 must compute, in the plain loop; it is not timed."""

    equals = None

    def __init__(self, case: Case):
        super().__init__(case)
        self.learned = LearnedTop1(case)

    def forward(self, hidden_BSD):
        gate_T, expert_T = self.learned.route(hidden_BSD.flatten(0, 1))
        outputs_TD = self.loop(hidden_BSD.flatten(0, 1), expert_T) * gate_T.to(hidden_BSD.dtype).unsqueeze(1)
        return outputs_TD.view_as(hidden_BSD)


def shared_ffns(case: Case) -> nn.ModuleList:
    """This rank's experts as GPT-2 feed-forwards, their weights the same memory as the hash layer's."""
    with torch.device("meta"):
        ffns = nn.ModuleList(GPT2MLP(case.config.ffn_size, case.config) for _ in case.local_experts)
    for local, ffn in enumerate(ffns):
        share_weights(ffn, case, local)
    return ffns


def share_weights(ffn: GPT2MLP, case: Case, local: int) -> None:
    """Make the feed-forward's parameters the memory of local expert number `local`."""
    for linear, name in ((ffn.c_fc, "up_proj"), (ffn.c_proj, "down_proj")):
        linear.weight = nn.Parameter(case.weights[name][local])
        linear.bias = nn.Parameter(case.weights[f"{name}_bias"][local])
