"""The training loop: batches in, optimizer steps, and metrics, validation and checkpoints on their schedule."""

from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import deepspeed.comm as dist
import numpy as np
import torch
from deepspeed.runtime.engine import DeepSpeedEngine

from train.checkpoint.commit import CheckpointError
from train.checkpoint.saver import Saver
from train.config.run_config import RunConfig
from train.config.seeds import dropout_seed
from train.faults.nonfinite import NonFiniteError
from train.faults.supervision import Supervision
from train.inputs import Inputs
from train.metrics.routing_probe import RoutingProbe
from train.metrics.run_log import RunLog
from train.metrics.validation import see_routes, validate
from train.prefetch.loader import MicroBatches, read_ahead
from train.prefetch.route_ahead import make_local_planner, plan_ahead
from train.processes.stop_request import StopRequested
from train.train_step import train_step


def train(
    engine: DeepSpeedEngine, config: RunConfig, inputs: Inputs, log: RunLog, watch: Supervision, *, first_step: int
) -> None:
    """Run the steps [first_step, config.max_steps). Collective over all ranks.

    StopRequested on request, after a checkpoint of the steps taken; NonFiniteError if more than max_nonfinite_steps
    steps had to be skipped; CheckpointError if a checkpoint that the run cannot do without could not be written.
    """
    if watch.stop_is_due():
        raise StopRequested(f"stopped before step {first_step} on request")
    training = _Training(engine, config, inputs, log, watch, first_step=first_step)
    try:
        training.run(first_step)
    except (StopRequested, NonFiniteError, CheckpointError):
        training.batches.close()  # all ranks come here together
        raise
    training.batches.close()


class _Training:
    """The parts of a run, and their schedule. Every method is collective over all ranks.

    A step under way is numbered from 0; after it, `step` counts the steps taken.
    """

    def __init__(self, engine, config: RunConfig, inputs: Inputs, log: RunLog, watch: Supervision, *, first_step: int):
        self.engine, self.config, self.inputs, self.log, self.watch = engine, config, inputs, log, watch
        self.micro_batches = _micro_batches(engine, config, inputs)
        numbers = range(first_step * self.per_step, config.max_steps * self.per_step)
        batches = read_ahead(self.micro_batches, numbers, num_workers=config.loader_workers)
        self.batches = plan_ahead(engine.module, batches, device=engine.device)
        compatibility = inputs.resume_compatibility(config)
        self.saver = Saver(engine, config, resume_compatibility=compatibility, tokenizer_dir=inputs.tokenizer_dir)
        self.probe = RoutingProbe(config)

    @property
    def per_step(self) -> int:
        """Micro-batches of this rank per step."""
        return self.engine.gradient_accumulation_steps()

    def run(self, first_step: int) -> None:
        if first_step > 0:
            self.complete_validation(first_step)
        for step in range(first_step, self.config.max_steps):
            try:
                self.take_step(step)
            except NonFiniteError:
                self.wait_for_checkpoint(step)  # all ranks come here together
                raise
            stops = self.validate_if_due(step + 1)
            self.save_if_due(step + 1, stops=stops)
            if stops and (step + 1 < self.config.max_steps or self.inputs.validation):  # the last validation is missing
                raise StopRequested(f"stopped at step {step + 1} on request")

    def complete_validation(self, step: int) -> None:
        """Run the validation that a stop skipped; otherwise replay its routing, the reference for the next one's."""
        if not self.inputs.validation or not self.is_due(step, self.config.eval_every):
            return
        if self.log.has_validation(step):
            see_routes(self.engine, self.inputs.validation, self.config, probe=self.probe)
        elif self.validate_if_due(step):
            raise StopRequested(f"stopped at step {step} on request")

    def take_step(self, step: int) -> None:
        """Train one step, and report it."""
        self.watch.at_step(step)
        # Dropout depends on step and rank alone, so that a resumed run draws the same numbers as an uninterrupted one.
        torch.manual_seed(dropout_seed(self.config.seed, step, rank=dist.get_rank()))
        learning_rate = self.engine.get_lr()[0]  # of this step: the engine advances to that of the next one
        losses = train_step(self.engine, islice(self.batches, self.per_step), self.log, self.watch)
        if self.watch.count_if_skipped():
            self.report_skipped(step, losses)
        waited = self.batches.take_seconds_waited()
        self.log.step_done(self.engine, step + 1, learning_rate=learning_rate, seconds_waited=waited)
        limit = self.config.max_nonfinite_steps
        if self.watch.num_skipped > limit:
            raise NonFiniteError(
                f"step {step} has NaN or Inf: {self.watch.num_skipped} non-finite steps exceed "
                f"max_nonfinite_steps={limit}"
            )
        slow = self.watch.slow_rank() if self.is_due(step + 1, self.config.log_every) else None
        if slow:
            self.log.print_line(slow)

    def validate_if_due(self, step: int) -> bool:
        """Validate on schedule. Returns whether the run must stop here: a stop interrupts the validation."""
        stops, config = self.watch.stops, self.config
        if stops or not self.inputs.validation or not self.is_due(step, config.eval_every):
            return stops
        self.watch.at_step(step, "validating")
        validation = validate(
            self.engine, self.inputs.validation, config, probe=self.probe, stop_is_due=self.watch.stop_is_due
        )
        if validation:
            self.log.validated(self.engine, step, validation)
        return validation is None

    def save_if_due(self, step: int, *, stops: bool) -> None:
        """Save on schedule, if the run stops, and at its end; wait for a checkpoint in flight only in the last two."""
        if stops or self.is_due(step, self.config.save_every):
            self.watch.at_step(step, "saving")
            self.wait_for_checkpoint(step)
            save = partial(self.saver.save, step=step, num_skipped=self.watch.num_skipped)
            self.tolerate_failed_save(save, step, must=stops)
        ends = stops or step == self.config.max_steps
        self.tolerate_failed_save(self.saver.wait if ends else self.saver.poll, step, must=ends)

    def wait_for_checkpoint(self, step: int) -> None:
        """Let a checkpoint in flight finish."""
        self.tolerate_failed_save(self.saver.wait, step)

    def tolerate_failed_save(self, act: Callable[[], Path | None], step: int, *, must: bool = False) -> None:
        """Call a method of the saver. If it fails, training continues unless the run must have this checkpoint."""
        try:
            folder = act()
        except CheckpointError as error:
            self.watch.report("checkpoint failed", step=step, error=str(error))
            if must or self.config.stop_on_failed_save or step == self.config.max_steps:
                raise
            self.log.print_line(f"          not saved: {error}; training continues")
        else:
            if folder:
                self.log.saved(folder)

    def report_skipped(self, step: int, losses: list[torch.Tensor]) -> None:
        """Remove a non-finite step from the log, and record how to replay it."""
        self.log.discard(len(losses))
        numbers = range(step * self.per_step, (step + 1) * self.per_step)
        samples = np.stack([self.micro_batches.addresses(n) for n in numbers])
        seed = dropout_seed(self.config.seed, step, rank=dist.get_rank())
        self.log.print_line(self.watch.describe_nonfinite_step(step, samples, seed, losses))

    def is_due(self, step: int, every: int) -> bool:
        """Whether the step is a multiple of `every`, or the last one; every=0 means only the last one."""
        return step == self.config.max_steps or (every > 0 and step % every == 0)


def _micro_batches(engine: DeepSpeedEngine, config: RunConfig, inputs: Inputs) -> MicroBatches:
    return MicroBatches(
        inputs.train,
        inputs.order,
        make_local_planner(engine.module),
        micro_batch_size=config.micro_batch_size,
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
    )
