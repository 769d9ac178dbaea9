"""The parameters, memory, batch, checkpoints and expert load of a run, computed before any weight exists."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_prep.tables.expert_load import max_over_mean, rank_load
from models.configuration_hash_gpt import HashGPTConfig
from models.parameter_count import ParameterCount, count_parameters
from train.activation_memory import activation_bytes
from train.checkpoint.disk_space import MIB, checkpoint_bytes, num_checkpoints
from train.config.run_config import RunConfig


@dataclass(frozen=True)
class MemoryPerRank:
    """Bytes that one rank holds, in addition to buffers and the batch."""

    weights: int  # of the forward pass
    gradients: int  # always fp32: bf16 runs sum their gradients in fp32 too
    optimizer: int  # ZeRO's fp32 copy of the weights, and Adam's two moments
    activations: int = 0  # of one micro-batch, between its forward and its backward pass

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def describe_run(
    config: RunConfig,
    model_config: HashGPTConfig,
    *,
    world_size: int,
    predicted_load: np.ndarray | None = None,
    missing_inputs: Sequence[str] = (),
) -> str:
    """Tables to read before the run. predicted_load: tokens per expert by the tables' counts [sparse layers, E].

    missing_inputs: paths of data and tables that do not exist yet.
    """
    count = count_parameters(model_config)
    sections = [
        _describe_parameters(count, model_config),
        _describe_memory(count, config, model_config, world_size=world_size),
        _describe_batch(config, count, world_size=world_size),
        _describe_checkpoints(config, model_config),
    ]
    if predicted_load is not None and model_config.sparse_layers:
        sections.append(_describe_load(predicted_load, model_config.sparse_layers, ep_size=config.ep_size))
    if missing_inputs:
        sections.append(f"Missing\n  {', '.join(missing_inputs)}: token hashes are assumed; load is not predicted")
    return "\n\n".join(sections)


def bytes_per_rank(
    count: ParameterCount, *, world_size: int, ep_size: int, zero_stage: int, precision: str, optimizer: str = "adam"
) -> MemoryPerRank:
    """Memory of one rank: all shared parameters and 1 / ep_size of the experts, reduced by ZeRO.

    ZeRO 1 shards the optimizer state, 2 also the gradients, 3 also the weights: shared parameters over all ranks,
    experts over the world_size / ep_size ranks that hold the same experts.
    """
    held = (count.shared, count.experts // ep_size)
    sharded = (_ceil(held[0], world_size), _ceil(held[1], world_size // ep_size))
    # ZeRO updates an fp32 copy of its shard, even if the weights are fp32.
    master_bytes = 4 if precision == "bf16" or zero_stage >= 1 else 0
    moment_bytes = 8 if optimizer == "adam" else 0
    return MemoryPerRank(
        weights=(4 if precision == "fp32" else 2) * sum(sharded if zero_stage >= 3 else held),
        gradients=4 * sum(sharded if zero_stage >= 2 else held),
        optimizer=(master_bytes + moment_bytes) * sum(sharded if zero_stage >= 1 else held),
    )


def _ceil(number: int, parts: int) -> int:
    return -(-number // parts)


def _describe_parameters(count: ParameterCount, network: HashGPTConfig) -> str:
    num_sparse = len(network.sparse_layers)
    router = "" if network.router == "hash" else f", router={network.router}"
    experts = f"{num_sparse} * {network.num_experts} experts{router}" if num_sparse else "dense"
    rows = [
        ("total", count.total, experts),
        ("active", count.active, "used by one token"),
        ("shared", count.shared, "used by every token"),
    ]
    if num_sparse:
        rows.append(("per expert", count.per_expert, ""))
    return "\n".join(["Parameters", *(f"  {name:<12}{value:>18,}  {note}".rstrip() for name, value, note in rows)])


def _describe_memory(count: ParameterCount, config: RunConfig, network: HashGPTConfig, *, world_size: int) -> str:
    held = bytes_per_rank(
        count,
        world_size=world_size,
        ep_size=config.ep_size,
        zero_stage=config.zero_stage,
        precision=config.precision,
        optimizer=config.optimizer,
    )
    activations = activation_bytes(
        network,
        num_tokens=config.micro_batch_size * config.context_length,
        element_bytes=4 if config.precision == "fp32" else 2,
        recomputes=config.activation_checkpointing,
        ep_size=config.ep_size,
    )
    memory = replace(held, activations=activations)
    setting = f"{config.precision}, zero_stage={config.zero_stage}, ep_size={config.ep_size}, world of {world_size}"
    parts = ("weights", "gradients", "optimizer", "activations", "total")
    lines = [f"  {part:<12}{getattr(memory, part) / MIB:>14,.1f} MiB" for part in parts]
    return "\n".join([f"Memory per rank ({setting})", *lines])


def _describe_batch(config: RunConfig, count: ParameterCount, *, world_size: int) -> str:
    micro_batches = config.global_batch_size // (config.micro_batch_size * world_size)
    tokens = config.global_batch_size * config.context_length
    operations = 6 * count.active * tokens  # 2 per weight forward, 4 backward
    hours = config.max_steps * operations / (100e12 * world_size) / 3600
    product = f"{world_size} ranks * {micro_batches} micro-batches * {config.micro_batch_size} sequences"
    return (
        f"Batch\n  {product} * {config.context_length} tokens = {tokens:,} tokens per step\n"
        f"  {config.max_steps:,} steps * {tokens:,} tokens = {config.max_steps * tokens:,} tokens\n"
        f"  6 * {count.active:,} active parameters * {tokens:,} tokens = {operations:.2e} operations per step: "
        f"{hours:.3g} hours at 100 TFLOP/s per rank"
    )


def _describe_checkpoints(config: RunConfig, network: HashGPTConfig) -> str:
    size, number = checkpoint_bytes(config, network), num_checkpoints(config)
    return f"Checkpoints\n  {number} * {size / MIB:,.1f} MiB = {number * size / MIB:,.1f} MiB on disk at once"


def _describe_load(load_LE: np.ndarray, sparse_layers: list[int], *, ep_size: int) -> str:
    num_experts = load_LE.shape[1]
    lines = [f"Predicted imbalance, fullest / mean\n  layer  {num_experts:>4} experts  {ep_size:>4} ranks"]
    for layer, load_E in zip(sparse_layers, load_LE, strict=True):
        over_experts, over_ranks = max_over_mean(load_E), max_over_mean(rank_load(load_E, ep_size))
        lines.append(f"  {layer:<5}  {over_experts:>12.3f}  {over_ranks:>10.3f}")
    return "\n".join(lines)
