"""Optimizer and learning-rate schedule, with parameter groups by which DeepSpeed's ZeRO recognises experts."""

import torch
from torch import nn
from transformers import get_scheduler, optimization

from models.sparse_ffn import SparseFFN
from train.config.run_config import RunConfig


def make_optimizer(model: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    groups = parameter_groups(model, weight_decay=config.weight_decay)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr)
    betas = (config.beta1, config.beta2)
    # Fused: one pass over weights, gradients and moments, without temporaries of their size; also on CPUs.
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.adam_epsilon, fused=True)


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict]:
    """Separate groups for shared and expert parameters, each with and without weight decay; no group is empty.

    ZeRO looks up the ranks of an expert group by its `name`, so both expert groups carry the name of the
    expert-parallel group; DeepSpeed's own helper would merge them and lose one of the two weight decays.
    """
    experts = _expert_group_names(model)
    groups = {}
    for name, parameter in model.named_parameters():
        decays = _decays(name, parameter)
        group_name = experts.get(id(parameter), "shared" if decays else "shared_without_decay")
        group = groups.setdefault((group_name, decays), {"params": [], "name": group_name})
        group["weight_decay"] = weight_decay if decays else 0.0
        group["params"].append(parameter)
        if group_name.startswith("ep_size"):
            group["moe"] = True
    return list(groups.values())


def _expert_group_names(model: nn.Module) -> dict[int, str]:
    """The group name of each expert parameter, by its id(): "experts" if every rank holds all of them."""
    layers = [module.experts for module in model.modules() if isinstance(module, SparseFFN)]
    names = [(experts, getattr(experts, "ep_group_name", "experts")) for experts in layers]
    return {id(parameter): name for experts, name in names for parameter in experts.parameters()}


def _decays(name: str, parameter: nn.Parameter) -> bool:
    # By name: stacked biases and norms are matrices in shape. w3 holds those of expert-parallel experts.
    return parameter.dim() > 1 and not name.endswith(("bias", "norm_weight", ".w3"))


def make_schedule(optimizer: torch.optim.Optimizer, config: RunConfig) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then the schedule by its name in transformers."""
    if config.schedule == "warmup_stable_decay":
        return optimization.get_wsd_schedule(
            optimizer,
            num_warmup_steps=config.warmup_steps,
            num_decay_steps=config.decay_steps,
            num_training_steps=config.max_steps,
        )
    name = "constant_with_warmup" if config.schedule == "constant" else config.schedule
    return get_scheduler(name, optimizer, num_warmup_steps=config.warmup_steps, num_training_steps=config.max_steps)
