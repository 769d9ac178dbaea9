"""grouped_mm beside the loop over experts, in values and gradients, with idle experts and an overloaded one."""

import torch
from transformers.activations import ACT2FN

from launch.benchmark.layers.check import TOLERANCE
from launch.gpu_acceptance.measuring.figures import Figure
from launch.gpu_acceptance.measuring.setting import Setting
from models.dispatch import DispatchPlan, make_plan
from models.grouped import ExpertWeights, GroupedMMFeedForward, LoopFeedForward, grouped_feed_forward
from models.routes import Routes

_ACT = ACT2FN["gelu_pytorch_tanh"].forward
_LEAVES = ("hidden states", "up", "up_bias", "down", "down_bias")


def measure(setting: Setting) -> list[Figure]:
    """The largest difference of each tensor, relative to the largest value of the loop's."""
    plan, leaves = _inputs(setting)
    found, expected = (_results(way, plan, leaves) for way in (GroupedMMFeedForward, LoopFeedForward))
    tolerance, names = TOLERANCE[torch.bfloat16], ["outputs", *(f"gradient of {name}" for name in _LEAVES)]
    figures = [
        Figure(f"difference in the {name}", _difference(a, b), at_most=tolerance)
        for name, a, b in zip(names, found, expected, strict=True)
    ]
    idle = [e for e, count in enumerate(plan.tokens_per_expert) if count == 0]
    nonzero = sum(int(grad[idle].count_nonzero()) for grad in found[2:])
    figures.append(Figure(f"gradients of {len(idle)} idle experts that are not zero", nonzero, at_most=0))
    return [*figures, _used_by_the_layer(plan, leaves, setting)]


def _used_by_the_layer(plan: DispatchPlan, leaves: list[torch.Tensor], setting: Setting) -> Figure:
    """1 if the layer takes grouped_mm by itself for these tensors."""
    hidden_TD, *weights = leaves
    outputs_TD = grouped_feed_forward(hidden_TD, plan, ExpertWeights(*weights), act=_ACT)
    uses = "GroupedMM" in type(outputs_TD.grad_fn).__name__
    skipped = setting.without_gpu
    if not skipped and torch.cuda.get_device_capability()[0] not in (9, 10):
        skipped = "skipped: needs a Hopper or Blackwell GPU"
    return Figure("the layer uses grouped_mm", float(uses), at_least=1, skipped=skipped)


def _inputs(setting: Setting) -> tuple[DispatchPlan, list[torch.Tensor]]:
    """A plan in which expert 0 takes half of the tokens and every eighth expert none; tokens and weights as leaves."""
    num_tokens, num_experts, width, inner = setting.size((32768, 64, 1024, 4096), (512, 16, 32, 64))
    generator = torch.Generator().manual_seed(0)
    expert_T = torch.randint(num_experts, (num_tokens,), generator=generator)
    expert_T[expert_T % 8 == 7] -= 1
    expert_T[: num_tokens // 2] = 0
    shapes = [(num_tokens, width), (num_experts, width, inner), (num_experts, inner), (num_experts, inner, width)]
    scales = (1.0, width**-0.5, 1.0, inner**-0.5, 1.0)
    leaves = [
        (torch.randn(shape, generator=generator) * scale).to(setting.device, torch.bfloat16).requires_grad_()
        for shape, scale in zip([*shapes, (num_experts, width)], scales, strict=True)
    ]
    return make_plan(Routes(expert_T.to(setting.device)), num_experts), leaves


def _results(way, plan: DispatchPlan, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    outputs_TD = way.apply(leaves[0], plan, _ACT, *leaves[1:])
    torch.manual_seed(1)
    return [outputs_TD.detach(), *torch.autograd.grad(outputs_TD, leaves, torch.randn_like(outputs_TD))]


def _difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected.float()).abs().max() / expected.float().abs().max())
