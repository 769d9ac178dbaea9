"""Gradient norms that stay on the device: DeepSpeed's functions would wait for it up to ten times per step.

DeepSpeed reads each norm to find out whether it is finite. train/faults/nonfinite.py has found that out before, for
every gradient of every rank, and lets no other step reach the optimizer.
"""

import deepspeed.comm as dist
import torch
from deepspeed.runtime import bf16_optimizer
from deepspeed.runtime.zero import stage3, stage_1_and_2
from deepspeed.utils import groups


def keep_norms_on_device() -> None:
    """Replace the functions by which DeepSpeed's optimizers combine, judge and apply the norm, in the whole process.

    From here on DeepSpeed takes every norm for finite: whoever calls engine.step() without NonFiniteGuard in front of
    the optimizer, as a benchmark may, updates the weights with NaN and Inf too.
    """
    for module in (bf16_optimizer, stage_1_and_2, stage3):
        module.is_invalid_grad_norm = _is_never_invalid
    bf16_optimizer.get_norm_with_moe_layers = _norm_with_experts
    bf16_optimizer.clip_tensors_by_global_norm = clip


def clip(input_tensors: list[torch.Tensor], max_norm: float, global_norm: torch.Tensor, mpu=None) -> None:
    """Scale all tensors so that their norm, which is global_norm, is at most max_norm. In DeepSpeed's interface."""
    factor = (max_norm / (global_norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(input_tensors, factor.to(input_tensors[0].device))


def _norm_with_experts(
    non_expert_norm: torch.Tensor, mpu, expert_tensors: dict[str, list[torch.Tensor]], norm_type: int
) -> torch.Tensor:
    """The norm of shared gradients and of all experts'. Collective over the expert-parallel group."""
    squares = non_expert_norm.square()
    for name, tensors in expert_tensors.items():
        experts = torch.stack(torch._foreach_norm(tensors)).square().sum()
        dist.all_reduce(experts, group=groups._get_expert_parallel_group(name))
        squares = squares + experts
    return squares.sqrt()


def _is_never_invalid(norm: torch.Tensor) -> bool:
    return False
