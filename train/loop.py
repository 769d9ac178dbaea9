"""The training loop: batches in, optimizer steps, and metrics, validation and checkpoints on their schedule."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import deepspeed.comm as dist
import torch
import torch.nn.functional as F
from deepspeed.runtime.engine import DeepSpeedEngine

from train.bad_numbers import BadNumbers
from train.batches import Batch, training_indices
from train.commit import CheckpointError
from train.config import RunConfig
from train.evaluate import validate
from train.inputs import Inputs
from train.metrics import RunLog
from train.model import derive_seed
from train.route_ahead import plan_ahead
from train.sample_order import SampleOrder
from train.saver import Saver
from train.stop_request import StopRequested
from train.supervision import Supervision


def train(
    engine: DeepSpeedEngine, config: RunConfig, inputs: Inputs, log: RunLog, watch: Supervision, *, first_step: int
) -> None:
    """Run the steps [first_step, config.steps). Collective over all ranks.

    StopRequested after a checkpoint where somebody asked; BadNumbers where too many steps had to be left out;
    CheckpointError where the run is to end with it.
    """
    batches = plan_ahead(engine.module, _micro_batches(config, inputs, first_step=first_step), device=engine.device)
    saver = Saver(engine, config, inputs)
    for step in range(first_step, config.steps):
        watch.at_step(step)
        # Dropout depends on step and rank alone, so that a resumed run draws what an untouched one draws.
        torch.manual_seed(dropout_seed(config, step))
        learning_rate = engine.get_lr()[0]  # of this step: the engine moves on to the next one's
        losses = train_step(engine, islice(batches, engine.gradient_accumulation_steps()), log, watch)
        done = step + 1
        if watch.left_out(step):
            log.leave_out(len(losses))
            log.say(watch.describe_bad_step(step, _indices(config, inputs, step), dropout_seed(config, step), losses))
        log.step_done(engine, done, learning_rate=learning_rate, seconds_waited=batches.take_seconds_waited())
        if watch.num_skipped > config.skip_bad_steps:
            raise BadNumbers(
                f"step {step} met NaN or Inf, and skip_bad_steps={config.skip_bad_steps} are left out already"
            )
        slow = watch.slow_rank() if _is_due(done, config.log_every, config.steps) else None
        if slow:
            log.say(slow)
        stops = watch.stop_is_due()
        if inputs.valid and not stops and _is_due(done, config.eval_every, config.steps):
            watch.at_step(done, "validating")
            log.validated(engine, done, validate(engine, inputs.valid, config))
        if stops or _is_due(done, config.save_every, config.steps):
            watch.at_step(done, "saving")
            _keep(saver.finish, config, log, watch, step=done)
            _keep(
                partial(saver.save, step=done, num_skipped=watch.num_skipped), config, log, watch, step=done, must=stops
            )
        ends = stops or done == config.steps
        _keep(saver.finish if ends else saver.finished, config, log, watch, step=done, must=ends)
        if stops and done < config.steps:
            raise StopRequested(f"stopped at step {done}, as was asked")


def train_step(
    engine: DeepSpeedEngine, micro_batches: Iterable[Batch], log: RunLog, watch: Supervision | None = None
) -> list[torch.Tensor]:
    """Forward and backward of each micro-batch, then one optimizer step, which DeepSpeed takes after the last."""
    losses = []
    for batch in micro_batches:
        batch = batch.to(engine.device)
        plans = batch.plans
        if plans is None:
            plans = engine.module.transformer.plan(batch.input_ids, **batch.known)
        logits = engine(batch.input_ids, plans=plans, use_cache=False).logits
        # Equally many targets on every rank, so the mean of the ranks' gradients is the global gradient.
        loss = F.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten())
        engine.backward(loss)
        losses.append(loss.detach())
        if watch:
            watch.see_loss(losses[-1])
        engine.step()
        log.add_micro_batch(losses[-1], plans)
    return losses


def dropout_seed(config: RunConfig, step: int) -> int:
    """Of this rank in a step."""
    return derive_seed(config.seed, "dropout", step, dist.get_rank())


def _keep(
    act: Callable[[], Path | None], config: RunConfig, log: RunLog, watch: Supervision, *, step: int, must: bool = False
) -> None:
    """Call a method of the saver; where it fails the run goes on with the checkpoints it has, unless it must save."""
    try:
        folder = act()
    except CheckpointError as error:
        watch.report("checkpoint failed", step=step, error=str(error))
        if must or config.stop_on_failed_save or step == config.steps:
            raise
        log.say(f"          not saved: {error}; training goes on")
    else:
        if folder:
            log.saved(folder)


def _micro_batches(config: RunConfig, inputs: Inputs, *, first_step: int) -> Iterator[Batch]:
    """This rank's micro-batches of all steps from first_step on."""
    for step in range(first_step, config.steps):
        yield from map(inputs.train.batch, _indices(config, inputs, step))


def _indices(config: RunConfig, inputs: Inputs, step: int):
    """This rank's samples of a step, [micro-batches, micro_batch_size]."""
    return training_indices(
        SampleOrder(inputs.train.num_sequences, seed=config.seed),
        step=step,
        global_batch_size=config.global_batch_size,
        micro_batch_size=config.micro_batch_size,
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
    )


def _is_due(done: int, every: int, last: int) -> bool:
    return done == last or (every > 0 and done % every == 0)
