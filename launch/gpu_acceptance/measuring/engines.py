"""Engines of one rank, on random weights and tokens drawn from Zipf's law, and one training step of them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import torch
from deepspeed.runtime.engine import DeepSpeedEngine

from launch.benchmark.layers.tokens import TokenSource
from models.configuration_hash_gpt import HashGPTConfig
from models.router_hash import num_keys
from train.config.deepspeed_config import deepspeed_config, find_ds_config
from train.config.run_config import RunConfig
from train.data.batches import Batch
from train.engine.engine import start_engine
from train.engine.model import build_model
from train.prefetch.route_ahead import BatchesAhead, make_local_planner, plan_ahead
from train.processes.process_group import silence_libraries, start_process_group
from train.processes.ranks import Ranks
from train.train_step import train_step

# ZeRO 3 keeps small weights gathered; with these settings, none is small.
NOTHING_IS_SMALL = {
    "stage3_param_persistence_threshold": 0, "stage3_max_reuse_distance": 0, "stage3_max_live_parameters": 0,
    "stage3_prefetch_bucket_size": 0,
}  # fmt: skip


def join_alone() -> torch.device:
    """A process group of this process alone, and its device."""
    silence_libraries()
    return start_process_group(Ranks(rank=0, world_size=1, local_rank=0))


def network(**fields) -> HashGPTConfig:
    """A network without dropout."""
    defaults = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    return HashGPTConfig(**{**defaults, "activation_function": "gelu_pytorch_tanh", **fields})


def start(config: HashGPTConfig, **fields) -> tuple[DeepSpeedEngine, RunConfig]:
    """An engine of the network, and its run config with these fields; tables are random or balanced by the tokens."""
    hashes = config.router == "hash" and bool(config.sparse_layers)
    defaults = {
        "train_data": "drawn", "route_table": ["made"] if hashes else [], "router": config.router,
        "sparse_layers": config.sparse_layers, "num_experts": config.num_experts,
        "num_hidden_layers": config.num_hidden_layers, "context_length": config.max_position_embeddings,
        "schedule": "constant", "warmup_steps": 0, "lr": 1e-3,
    }  # fmt: skip
    run = RunConfig(**{**defaults, **fields})
    tables = [_tables(config, index) for index in range(len(config.sparse_layers))] if hashes else []
    model = build_model(config, route_tables=tables, ep_size=1, seed=0)
    return start_engine(model, run, deepspeed_config(run, world_size=1)), run


def _tables(config: HashGPTConfig, index: int) -> dict[str, torch.Tensor]:
    """Balanced by the tokens' counts if the layer hashes the token alone, else random."""
    num_columns = config.num_hashes * config.rotation_period
    if config.hash_keys[index] == "token" and num_columns == 1:
        source = TokenSource(None, vocab_size=config.vocab_size, seed=0)
        tables = {"route_table": source.table(None, num_experts=config.num_experts, ep_size=1)}
    else:
        shape = (num_keys(config.hash_keys[index], config), num_columns)
        tables = {"route_table": torch.randint(config.num_experts, shape, generator=_generator(index))}
    return {**tables, **_split_tables(config, index)}


def _split_tables(config: HashGPTConfig, index: int) -> dict[str, torch.Tensor]:
    """Tables that spread frequent tokens over experts by the token before them, and some by position."""
    num_frequent, num_groups, period = config.split_sizes[index] if config.split_sizes else (0, 0, 0)
    if not num_frequent:
        return {}
    split_index = torch.full((config.vocab_size,), -1)
    split_index[:num_frequent] = torch.arange(num_frequent)
    shape = (num_frequent, config.vocab_size + 1)
    split_table = torch.randint(config.num_experts, shape, generator=_generator(index))
    split_table[0, :num_groups] = -1  # by position
    position_table = torch.randint(config.num_experts, (num_groups, period), generator=_generator(index))
    return {"split_index": split_index, "split_table": split_table, "position_table": position_table}


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batches_ahead(engine: DeepSpeedEngine, run: RunConfig, *, num_steps: int | None = None) -> BatchesAhead:
    """The micro-batches of one global batch, again and again, or for num_steps steps, planned ahead on the device."""
    source = TokenSource(None, vocab_size=engine.module.config.vocab_size, seed=0)
    tokens = source.draw(run.global_batch_size, run.context_length + 1, rank=0)
    parts = [_batch(part) for part in tokens.split(run.micro_batch_size)]
    return plan_ahead(engine.module, _planned(engine, parts, num_steps), device=engine.device)


def _planned(engine: DeepSpeedEngine, parts: list[Batch], num_steps: int | None) -> Iterator[Batch]:
    planner = make_local_planner(engine.module)
    for batch in cycle(parts) if num_steps is None else parts * num_steps:
        yield replace(batch, plans=planner.plan(batch)) if planner else batch


def _batch(tokens: torch.Tensor) -> Batch:
    """The guesses of a baseline are the inputs: any ids will do."""
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    return Batch(inputs, targets, torch.ones(len(tokens)), predicted=inputs)


def take_step(engine, batches: Iterable[Batch], watch=None) -> list[torch.Tensor]:
    """One step without a log; the cross-entropies of its micro-batches."""
    return train_step(engine, batches, watch=watch)


def zero_3_settings(folder: Path) -> str:
    """The path of a DeepSpeed JSON with which ZeRO 3 gathers and frees every weight."""
    settings = json.loads(find_ds_config("base").read_text())
    settings["zero_optimization"] |= NOTHING_IS_SMALL
    (folder / "zero_3.json").write_text(json.dumps(settings))
    return str(folder / "zero_3.json")


def wait_for_device(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def wait_for_training(device: torch.device) -> None:
    """Wait for the training's stream alone."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
