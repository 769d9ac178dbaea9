"""Code that the tests of the engine run on every rank."""

import copy
from dataclasses import replace
from pathlib import Path

import deepspeed.comm as dist

from tests.distributed.training import SilentLog, batch, local_parameters, make_model, micro_batches, run_config
from train.checkpoint.checkpoint import facts_of_run, save_checkpoint, take_snapshot
from train.checkpoint.export import ModelExport
from train.config.deepspeed_config import deepspeed_config
from train.engine.engine import start_engine
from train.processes.agreement import AllRanks
from train.train_step import train_step


def start(routing: str = "token", **fields):
    """An engine and its config. routing: see tests.distributed.training.network."""
    config = run_config(**fields)
    model = make_model(routing, ep_size=config.ep_size)
    return start_engine(model, config, deepspeed_config(config, world_size=dist.get_world_size())), config


def save(engine, config, folder: str, *, step: int) -> None:
    """Save a checkpoint with an empty tokenizer folder."""
    tokenizer_dir = Path(folder) / "tokenizer"
    tokenizer_dir.mkdir(exist_ok=True)
    export = ModelExport(engine.module, tokenizer_dir)
    facts = facts_of_run(config, export, resume_compatibility={})
    snapshot = take_snapshot(engine, config, step=step, facts=facts, export=export)
    save_checkpoint(snapshot, config, AllRanks())


def export_on_ranks(configs: list[dict], folder: str) -> list[dict]:
    """Train a step and export, once per config; return the parameters of each rank."""
    results = []
    for index, fields in enumerate(configs):
        engine, config = start(**fields)
        batches = micro_batches(batch(0), config, dist.get_rank(), dist.get_world_size())
        train_step(engine, batches, SilentLog())
        save(engine, replace(config, run_dir=f"{folder}/{index}"), folder, step=1)
        results.append(local_parameters(engine.module))
    return results


def bf16_norms_on_ranks(configs: list[dict]) -> list[float]:
    """The gradient norm that the engine reports for one step of each config."""
    norms = []
    for fields in configs:
        engine, config = start(**fields)
        train_step(engine, micro_batches(batch(0), config, dist.get_rank(), dist.get_world_size()), SilentLog())
        norms.append(float(engine.get_global_grad_norm()))
    return norms


def errors_on_ranks() -> dict[str, str]:
    """The error messages by the refused action."""
    engine, _ = start(ep_size=2)
    errors = {"save_16bit_model": _error(lambda: engine.save_16bit_model("unused"))}
    errors["deepcopy"] = _error(_start_with_copied_experts)
    errors["assign"] = _error(_start_with_assigned_experts)
    return errors


def _start_with_copied_experts() -> None:
    config = run_config(ep_size=2)
    model = make_model(ep_size=2)
    layer = model.transformer.h[0].mlp.experts
    layer.experts = copy.deepcopy(layer.experts)
    start_engine(model, config, deepspeed_config(config, world_size=dist.get_world_size()))


def _start_with_assigned_experts() -> None:
    config = run_config(ep_size=2)
    model = make_model(ep_size=2)
    model.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()}, assign=True)
    start_engine(model, config, deepspeed_config(config, world_size=dist.get_world_size()))


def _error(action) -> str:
    try:
        action()
    except RuntimeError as error:
        return str(error)
    return "nothing was raised"
