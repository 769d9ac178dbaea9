"""The training loop: batches in, optimizer steps, and metrics, validation and checkpoints on their schedule."""

from collections.abc import Iterable, Iterator
from itertools import islice

import deepspeed.comm as dist
import torch
import torch.nn.functional as F
from deepspeed.runtime.engine import DeepSpeedEngine

from train.batches import Batch, training_indices
from train.checkpoint import save_checkpoint
from train.config import RunConfig
from train.evaluate import validate
from train.inputs import Inputs
from train.metrics import RunLog
from train.model import derive_seed
from train.route_ahead import plan_ahead
from train.sample_order import SampleOrder


def train(engine: DeepSpeedEngine, config: RunConfig, inputs: Inputs, log: RunLog, *, first_step: int) -> None:
    """Run the steps [first_step, config.steps). Collective over all ranks."""
    batches = plan_ahead(engine.module, _micro_batches(config, inputs, first_step=first_step), device=engine.device)
    for step in range(first_step, config.steps):
        # Dropout depends on step and rank alone, so that a resumed run draws what an untouched one draws.
        torch.manual_seed(derive_seed(config.seed, "dropout", step, dist.get_rank()))
        learning_rate = engine.get_lr()[0]  # of this step: the engine moves on to the next one's
        train_step(engine, islice(batches, engine.gradient_accumulation_steps()), log)
        done = step + 1
        log.step_done(engine, done, learning_rate=learning_rate, seconds_waited=batches.take_seconds_waited())
        if inputs.valid and _is_due(done, config.eval_every, config.steps):
            log.validated(engine, done, validate(engine, inputs.valid, config))
        if _is_due(done, config.save_every, config.steps):
            log.saved(save_checkpoint(engine, config, inputs, step=done))


def train_step(engine: DeepSpeedEngine, micro_batches: Iterable[Batch], log: RunLog) -> None:
    """Forward and backward of each micro-batch, then one optimizer step, which DeepSpeed takes after the last."""
    for batch in micro_batches:
        batch = batch.to(engine.device)
        plans = batch.plans
        if plans is None:
            plans = engine.module.transformer.plan(batch.input_ids, **batch.known)
        logits = engine(batch.input_ids, plans=plans, use_cache=False).logits
        # Equally many targets on every rank, so the mean of the ranks' gradients is the global gradient.
        loss = F.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten())
        engine.backward(loss)
        engine.step()
        log.add_micro_batch(loss.detach(), plans)


def _micro_batches(config: RunConfig, inputs: Inputs, *, first_step: int) -> Iterator[Batch]:
    """This rank's micro-batches of all steps from first_step on."""
    order = SampleOrder(inputs.train.num_sequences, seed=config.seed)
    for step in range(first_step, config.steps):
        indices = training_indices(
            order,
            step=step,
            global_batch_size=config.global_batch_size,
            micro_batch_size=config.micro_batch_size,
            rank=dist.get_rank(),
            world_size=dist.get_world_size(),
        )
        yield from map(inputs.train.batch, indices)


def _is_due(done: int, every: int, last: int) -> bool:
    return done == last or (every > 0 and done % every == 0)
