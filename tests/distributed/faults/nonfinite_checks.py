"""Code that the tests of non-finite values run on every rank."""

import deepspeed.comm as dist
import torch

from tests.distributed.checkpoint_checks import state
from tests.distributed.engine_checks import start
from tests.distributed.training import SilentLog, batch, micro_batches
from train.checkpoint.state_shards import num_updates
from train.faults.supervision import Supervision
from train.processes.stop_request import StopRequest
from train.train_step import train_step

NONFINITE_STEP, NUM_STEPS = 1, 3


def skip_a_step(configs: list[dict], folder: str) -> list[dict]:
    """Train with non-finite values on rank 1 in NONFINITE_STEP, and without that step; both results, per config."""
    results = []
    for fields in configs:
        fields = dict(fields)
        kind = fields.pop("kind")
        met, nonfinite_steps = _train(fields, folder, steps=range(NUM_STEPS), kind=kind)
        without, none = _train(fields, folder, steps=[s for s in range(NUM_STEPS) if s != NONFINITE_STEP], kind=None)
        results.append({"met": met, "without": without, "nonfinite_steps": nonfinite_steps, "none": none})
    return results


def _train(fields: dict, folder: str, *, steps, kind: str | None) -> tuple[dict, list[int]]:
    engine, config = start(**fields, run_dir=folder)
    watch, nonfinite_steps = Supervision(engine, config, None, StopRequest(folder)), []
    for step in steps:
        poison = _poison(engine, kind) if step == NONFINITE_STEP and kind and dist.get_rank() == 1 else None
        train_step(
            engine, micro_batches(batch(step), config, dist.get_rank(), dist.get_world_size()), SilentLog(), watch
        )
        if poison:
            poison.remove()
        if watch.count_if_skipped():
            nonfinite_steps.append(step)
    return state(engine) | {
        "updates": torch.tensor(num_updates(engine)),
        "lr": torch.tensor(engine.get_lr()),
    }, nonfinite_steps


def _poison(engine, kind: str):
    """Put NaN into the loss, or keep it finite and make its gradient infinite."""

    def hook(module, arguments, output):
        loss, token_losses = output
        if kind == "nan in the loss":
            return loss * torch.nan, token_losses
        loss.register_hook(lambda gradient: gradient * torch.inf)
        return loss, token_losses

    return engine.module.lm_head.register_forward_hook(hook)
