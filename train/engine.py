"""The DeepSpeed engine of a run, started so that none of DeepSpeed's silent failures can reach it."""

import deepspeed
import deepspeed.comm as dist
import torch
from deepspeed.moe.utils import is_moe_param
from deepspeed.runtime.engine import DeepSpeedEngine
from torch import nn

from train.config import RunConfig
from train.expert_parallel import ExpertParallelExperts, assert_experts_are_tagged
from train.optimizer import make_optimizer, make_schedule
from train.safe_checkpoint_engine import SafeCheckpointEngine


def start_engine(model: nn.Module, config: RunConfig, settings: dict) -> DeepSpeedEngine:
    """Collective over all ranks. `settings` is the resolved DeepSpeed JSON."""
    if config.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    assert_experts_are_tagged(model)
    optimizer = make_optimizer(model, config)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, lr_scheduler=make_schedule(optimizer, config), config=settings
    )
    engine.checkpoint_engine = SafeCheckpointEngine(engine._config)
    engine.save_16bit_model = _refuse_16bit_export
    if config.zero_stage == 0:
        # DeepSpeed averages the ranks' norms here, which makes the update depend on ep_size.
        engine.clip_fp32_gradients = lambda: _clip_and_report(engine, max_norm=config.clip)
    return engine


def _clip_and_report(engine: DeepSpeedEngine, *, max_norm: float) -> None:
    engine._global_grad_norm = clip_gradients(engine.module, max_norm=max_norm)  # what get_global_grad_norm() returns


def clip_gradients(model: nn.Module, *, max_norm: float) -> float:
    """Scale all gradients so that their norm, every expert counted once, is at most max_norm; returns the norm.

    Collective over the expert-parallel group, whose ranks hold different experts and the same shared gradients.
    """
    gradients = [(is_moe_param(p), p.grad) for p in model.parameters() if p.grad is not None]
    shared = _sum_of_squares([grad for is_expert, grad in gradients if not is_expert])
    experts = _sum_of_squares([grad for is_expert, grad in gradients if is_expert])
    group = _expert_parallel_group(model)
    if group is not None:
        dist.all_reduce(experts, group=group)
    norm = (shared + experts).sqrt()
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for _, grad in gradients:
        grad.mul_(factor.to(grad.device))
    return norm.item()


def _sum_of_squares(gradients: list[torch.Tensor]) -> torch.Tensor:
    if not gradients:
        return torch.zeros(())
    return torch.stack(torch._foreach_norm([grad.float() for grad in gradients])).square().sum()


def _expert_parallel_group(model: nn.Module):
    groups = [module.ep_group for module in model.modules() if isinstance(module, ExpertParallelExperts)]
    return groups[0] if groups else None


def _refuse_16bit_export(*_, **__):
    raise RuntimeError("save_16bit_model writes rank 0's experts only; use train.export.export_model")
