"""The training loop: batches in, optimizer steps, and metrics, validation and checkpoints on their schedule."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path

import deepspeed.comm as dist
import numpy as np
import torch
import torch.nn.functional as F
from deepspeed.runtime.engine import DeepSpeedEngine

from models.routes import add_auxiliary_losses
from train.checkpoint.commit import CheckpointError
from train.checkpoint.saver import Saver
from train.config.run_config import RunConfig
from train.config.seeds import dropout_seed
from train.data.batches import Batch
from train.faults.nonfinite import NonFiniteError
from train.faults.supervision import Supervision
from train.inputs import Inputs
from train.metrics.routing_probe import RoutingProbe
from train.metrics.run_log import RunLog
from train.metrics.validation import see_routes, validate
from train.prefetch.loader import MicroBatches, read_ahead
from train.prefetch.route_ahead import make_local_planner, plan_ahead
from train.processes.stop_request import StopRequested


def train(
    engine: DeepSpeedEngine, config: RunConfig, inputs: Inputs, log: RunLog, watch: Supervision, *, first_step: int
) -> None:
    """Run the steps [first_step, config.max_steps). Collective over all ranks.

    StopRequested where somebody asked, after a checkpoint of what was done; NonFiniteError where too many steps had to be
    left out; CheckpointError where the run is to end with it.
    """
    if watch.stop_is_due():
        raise StopRequested(f"stopped before step {first_step}, as was asked")
    training = _Training(engine, config, inputs, log, watch, first_step=first_step)
    try:
        training.run(first_step)
    except (StopRequested, NonFiniteError, CheckpointError):
        training.batches.close()  # all ranks come here together
        raise
    training.batches.close()


class _Training:
    """What a run does at each step. Every method is collective over all ranks; `done` counts steps."""

    def __init__(self, engine, config: RunConfig, inputs: Inputs, log: RunLog, watch: Supervision, *, first_step: int):
        self.engine, self.config, self.inputs, self.log, self.watch = engine, config, inputs, log, watch
        self.micro_batches = _micro_batches(engine, config, inputs)
        numbers = range(first_step * self.per_step, config.max_steps * self.per_step)
        batches = read_ahead(self.micro_batches, numbers, num_workers=config.loader_workers)
        self.batches = plan_ahead(engine.module, batches, device=engine.device)
        self.saver, self.probe = Saver(engine, config, inputs), RoutingProbe(config)

    @property
    def per_step(self) -> int:
        """Micro-batches of this rank per step."""
        return self.engine.gradient_accumulation_steps()

    def run(self, first_step: int) -> None:
        if first_step > 0:
            self.take_up(first_step)
        for step in range(first_step, self.config.max_steps):
            try:
                self.step(step)
            except NonFiniteError:
                self.wait_for_checkpoint(step)  # all ranks come here together
                raise
            stops = self.validate_if_due(step + 1)
            self.save_if_due(step + 1, stops=stops)
            if stops and (step + 1 < self.config.max_steps or self.inputs.valid):  # the last validation is still owed
                raise StopRequested(f"stopped at step {step + 1}, as was asked")

    def take_up(self, done: int) -> None:
        """Make up for a validation that a stop left out; or see its routes again, which the next is compared with."""
        if not self.inputs.valid or not _is_due(done, self.config.eval_every, self.config.max_steps):
            return
        if self.log.has_validation(done):
            see_routes(self.engine, self.inputs.valid, self.config, probe=self.probe)
        elif self.validate_if_due(done):
            raise StopRequested(f"stopped at step {done}, as was asked")

    def step(self, step: int) -> None:
        self.watch.at_step(step)
        # Dropout depends on step and rank alone, so that a resumed run draws what an untouched one draws.
        torch.manual_seed(dropout_seed(self.config.seed, step, rank=dist.get_rank()))
        learning_rate = self.engine.get_lr()[0]  # of this step: the engine moves on to the next one's
        micro_batches = islice(self.batches, self.per_step)
        losses = train_step(self.engine, micro_batches, self.log, self.watch)
        if self.watch.left_out(step):
            self._describe_bad_step(step, losses)
        waited = self.batches.take_seconds_waited()
        self.log.step_done(self.engine, step + 1, learning_rate=learning_rate, seconds_waited=waited)
        if self.watch.num_skipped > self.config.max_nonfinite_steps:
            raise NonFiniteError(
                f"step {step} met NaN or Inf, and max_nonfinite_steps={self.config.max_nonfinite_steps} are left out already"
            )
        slow = self.watch.slow_rank() if _is_due(step + 1, self.config.log_every, self.config.max_steps) else None
        if slow:
            self.log.print_line(slow)

    def validate_if_due(self, done: int) -> bool:
        """Whether the run is to stop here; it does not wait for a validation to end."""
        stops, config = self.watch.stop_is_due(), self.config
        if stops or not self.inputs.valid or not _is_due(done, config.eval_every, config.max_steps):
            return stops
        self.watch.at_step(done, "validating")
        validation = validate(
            self.engine, self.inputs.valid, config, probe=self.probe, stop_is_due=self.watch.stop_is_due
        )
        if validation:
            self.log.validated(self.engine, done, validation)
        return validation is None

    def save_if_due(self, done: int, *, stops: bool) -> None:
        """Save on schedule, where the run stops, and at its end; only there a checkpoint in flight is waited for."""
        if stops or _is_due(done, self.config.save_every, self.config.max_steps):
            self.watch.at_step(done, "saving")
            self.wait_for_checkpoint(done)
            self._keep(partial(self.saver.save, step=done, num_skipped=self.watch.num_skipped), done, must=stops)
        ends = stops or done == self.config.max_steps
        self._keep(self.saver.finish if ends else self.saver.finished, done, must=ends)

    def wait_for_checkpoint(self, done: int) -> None:
        """Let a checkpoint that is in flight arrive."""
        self._keep(self.saver.finish, done)

    def _keep(self, act: Callable[[], Path | None], done: int, *, must: bool = False) -> None:
        """Call a method of the saver; where it fails the run goes on with the checkpoints it has, if it may."""
        try:
            folder = act()
        except CheckpointError as error:
            self.watch.report("checkpoint failed", step=done, error=str(error))
            if must or self.config.stop_on_failed_save or done == self.config.max_steps:
                raise
            self.log.print_line(f"          not saved: {error}; training goes on")
        else:
            if folder:
                self.log.saved(folder)

    def _describe_bad_step(self, step: int, losses: list[torch.Tensor]) -> None:
        self.log.discard(len(losses))
        numbers = range(step * self.per_step, (step + 1) * self.per_step)
        samples = np.stack([self.micro_batches.indices(n) for n in numbers])
        seed = dropout_seed(self.config.seed, step, rank=dist.get_rank())
        self.log.print_line(self.watch.describe_nonfinite_step(step, samples, seed, losses))


def train_step(
    engine: DeepSpeedEngine, micro_batches: Iterable[Batch], log: RunLog, watch: Supervision | None = None
) -> list[torch.Tensor]:
    """Forward and backward of each micro-batch, then one optimizer step, which DeepSpeed takes after the last.

    Returns the cross-entropies; what learned routers add to them is in the gradients and in the log.
    """
    losses = []
    for batch in micro_batches:
        outputs = engine(batch.input_ids, plans=batch.plans, use_cache=False, **batch.known)
        # Equally many targets on every rank, so the mean of the ranks' gradients is the global gradient.
        loss = F.cross_entropy(outputs.logits.flatten(0, 1).float(), batch.targets.flatten())
        engine.backward(add_auxiliary_losses(loss, outputs.routing))
        losses.append(loss.detach())
        if watch:
            watch.see_loss(losses[-1])
        engine.step()
        log.add_micro_batch(losses[-1], outputs.routing)
    return losses


def _micro_batches(engine: DeepSpeedEngine, config: RunConfig, inputs: Inputs) -> MicroBatches:
    return MicroBatches(
        inputs.train,
        inputs.order,
        make_local_planner(engine.module),
        micro_batch_size=config.micro_batch_size,
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
    )


def _is_due(done: int, every: int, last: int) -> bool:
    return done == last or (every > 0 and done % every == 0)
