"""The DeepSpeed engine of a run, started so that DeepSpeed's silent failures cannot occur."""

import deepspeed
import deepspeed.comm as dist
import torch
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from torch import nn

from models.sparse_ffn import SparseFFN
from train.config.run_config import RunConfig
from train.engine.device_norms import clip, keep_norms_on_device
from train.engine.optimizer import make_optimizer, make_schedule
from train.parallel.expert_parallel import ExpertParallelExperts, assert_experts_are_tagged
from train.parallel.recomputation import keep_received
from train.parallel.saved_views import remember_views_of_experts


def start_engine(model: nn.Module, config: RunConfig, settings: dict) -> DeepSpeedEngine:
    """Collective over all ranks. `settings` is the resolved DeepSpeed JSON."""
    if config.activation_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": keep_received})
    assert_experts_are_tagged(model)
    if config.zero_stage == 3:
        remember_views_of_experts(model)
    keep_norms_on_device()
    optimizer = make_optimizer(model, config)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, lr_scheduler=make_schedule(optimizer, config), config=settings
    )
    engine.save_16bit_model = _refuse_16bit_export
    set_clipping(engine, config)
    return engine


def set_clipping(engine: DeepSpeedEngine, config: RunConfig) -> None:
    """Clip by the norm of all parameters, every expert counted once, or by that of shared parameters alone.

    BASE layers were trained in the second way (Lewis et al., 2021); its coefficient scales experts too. ZeRO 0 would
    average the ranks' norms, which makes the update depend on ep_size. ZeRO 1 and 2 only need to exclude expert groups.
    """
    shared_only = config.grad_norm_scope == "shared"
    if config.zero_stage == 0:
        engine.clip_fp32_gradients = lambda: _clip_and_report(
            engine, max_norm=config.max_grad_norm, shared_only=shared_only
        )
    elif shared_only and isinstance(engine.optimizer, BF16_Optimizer):
        _exclude_experts_from_bf16_norm(engine.optimizer)
    elif shared_only:
        engine.optimizer.scaled_global_norm = lambda norm_type=2: _shared_norm(engine.optimizer)


def _shared_norm(optimizer: DeepSpeedZeroOptimizer) -> torch.Tensor:
    """The norm over the groups of shared parameters. Collective over all ranks."""
    norms = [
        optimizer.get_grad_norm_direct(optimizer.averaged_gradients[index], optimizer.params_in_partition[index])
        for index in _shared_groups(optimizer.optimizer)
    ]
    return torch.stack([torch.as_tensor(norm).float() for norm in norms]).norm()


def _exclude_experts_from_bf16_norm(optimizer: BF16_Optimizer) -> None:
    all_gradients = optimizer.get_grads_for_norm

    def shared_gradients(for_clipping: bool = False):
        if for_clipping:
            return all_gradients(for_clipping=True)
        groups = [optimizer.fp32_groups_gradients[index] for index in _shared_groups(optimizer.optimizer)]
        return [gradient for group in groups for gradient in group], {}

    optimizer.get_grads_for_norm = shared_gradients


def _shared_groups(optimizer: torch.optim.Optimizer) -> list[int]:
    return [index for index, group in enumerate(optimizer.param_groups) if group["name"].startswith("shared")]


def _clip_and_report(engine: DeepSpeedEngine, *, max_norm: float, shared_only: bool) -> None:
    norm = clip_gradients(engine.module, max_norm=max_norm, shared_only=shared_only)
    engine._global_grad_norm = norm  # what get_global_grad_norm() returns


def clip_gradients(model: nn.Module, *, max_norm: float, shared_only: bool = False) -> torch.Tensor:
    """Scale all gradients so that their norm, every expert counted once, is at most max_norm; returns the norm.

    Collective over the expert-parallel group, whose ranks hold different experts and the same shared gradients. With
    shared_only, the norm is that of shared parameters, and nothing is sent.
    """
    is_expert = expert_parameter_ids(model)
    named = [(id(p) in is_expert, p.grad) for p in model.parameters() if p.grad is not None]
    squares = _sum_of_squares([grad for expert, grad in named if not expert])
    if not shared_only:
        experts = _sum_of_squares([grad for expert, grad in named if expert])
        group = _expert_parallel_group(model)
        if group is not None:
            dist.all_reduce(experts, group=group)
        squares = squares + experts
    norm = squares.sqrt()
    clip([grad for _, grad in named], max_norm, norm)
    return norm


def expert_parameter_ids(model: nn.Module) -> set[int]:
    """The id() of each parameter of an expert, on this rank or replicated."""
    layers = [module.experts for module in model.modules() if isinstance(module, SparseFFN)]
    return {id(parameter) for experts in layers for parameter in experts.parameters()}


def _sum_of_squares(gradients: list[torch.Tensor]) -> torch.Tensor:
    if not gradients:
        return torch.zeros(())
    return torch.stack(torch._foreach_norm([grad.float() for grad in gradients])).square().sum()


def _expert_parallel_group(model: nn.Module):
    groups = [module.ep_group for module in model.modules() if isinstance(module, ExpertParallelExperts)]
    return groups[0] if groups else None


def _refuse_16bit_export(*_, **__):
    raise RuntimeError("save_16bit_model writes rank 0's experts only; use train.checkpoint.export.ModelExport")
