"""Supervision: everything that a run watches while it trains (stop requests, non-finite values, hanging ranks)."""

import os
import sys
import threading
from pathlib import Path

import deepspeed.comm as dist
import numpy as np
import torch
from deepspeed.runtime.engine import DeepSpeedEngine

from train.config.run_config import RunConfig
from train.faults.events import write_event
from train.faults.nonfinite import NonFiniteGuard, describe_nonfinite_step
from train.faults.watchdog import TRAINING, Watchdog
from train.processes.agreement import Agreement
from train.processes.exit_codes import EXIT_HANG
from train.processes.stop_request import StopRequest

_BEATS_TO_COMPARE = 40  # 20 seconds
_SLOW = 0.25  # a rank is slow if the others wait for this much more of their time than it does
_SECONDS_TO_PRINT = 1


class Supervision:
    """Collective over all ranks to create; methods are collective if they say so.

    num_skipped: steps skipped so far because of non-finite values, including those before the run was resumed.
    stops: whether any rank had a stop request when the ranks last agreed, in the step that was just taken or later.
    """

    def __init__(self, engine: DeepSpeedEngine, config: RunConfig, watchdog: Watchdog | None, stop: StopRequest):
        self._config, self._watchdog, self._stop = config, watchdog, stop
        self._agreement = Agreement()
        self._guard = NonFiniteGuard(engine, self._agree_on_step)
        self.num_skipped, self.stops = 0, False

    def at_step(self, step: int, phase: str = TRAINING) -> None:
        """This rank has reached a step, or a long phase between steps."""
        if self._watchdog:
            self._watchdog.at(step, phase)

    def record_loss(self, loss: torch.Tensor) -> None:
        """Record the loss of a micro-batch, before its optimizer step."""
        self._guard.record_loss(loss)

    def count_if_skipped(self) -> bool:
        """Whether the step that was just taken updated nothing; if so, num_skipped counts it."""
        self.num_skipped += self._guard.was_nonfinite
        return self._guard.was_nonfinite

    def describe_nonfinite_step(self, step: int, sample_ids: np.ndarray, seed: int, losses: list[torch.Tensor]) -> str:
        """Record what this rank needs to replay the step, and an event; returns a line for the log."""
        where = Path(self._config.run_dir) / "nonfinite_steps"
        describe_nonfinite_step(
            where,
            step=step,
            rank=dist.get_rank(),
            sample_ids=sample_ids,
            dropout_seed=seed,
            losses=[loss.item() for loss in losses],
        )
        self.report("non-finite step", step=step, num_skipped=self.num_skipped, replay=str(where))
        return f"          step {step}: NaN or Inf in a loss or gradient, step skipped; samples and seeds: {where}"

    def stop_is_due(self) -> bool:
        """Whether any rank has a stop request, between steps. Collective."""
        self.stops = self._agreement.any(self._stop.is_made())
        return self.stops

    def slow_rank(self) -> str | None:
        """A line about a rank that the others wait for; None before enough heartbeats to compare. Collective."""
        if self._watchdog is None or self._agreement.any(self._watchdog.num_beats < _BEATS_TO_COMPARE):
            return None
        shares = self._agreement.gather(self._watchdog.take_waiting_share())
        return describe_slow_rank(shares)

    def _agree_on_step(self, is_nonfinite: bool) -> bool:
        """Whether the step is non-finite on any rank; the same message carries the stop requests. Collective."""
        is_nonfinite, self.stops = self._agreement.each([is_nonfinite, self._stop.is_made()])
        return is_nonfinite

    def report(self, what: str, **details) -> None:
        """Write an event, on rank 0 only."""
        if dist.get_rank() == 0:
            write_event(self._config.run_dir, what, **details)


def describe_slow_rank(waiting_shares: list[float]) -> str | None:
    """A line about the rank that waits least, if the others wait for it.

    waiting_shares: for each rank, the share of its time that it spends in collectives.
    """
    slow = int(np.argmin(waiting_shares))
    others = [share for rank, share in enumerate(waiting_shares) if rank != slow]
    if not others or np.median(others) - waiting_shares[slow] < _SLOW:
        return None
    return (
        f"note: rank {slow} is slow: it waits for others {waiting_shares[slow]:.0%} of its time, the others "
        f"{np.median(others):.0%} of theirs"
    )


def start_watchdog(config: RunConfig, *, rank: int, world_size: int) -> Watchdog | None:
    """None if hang_timeout_seconds is 0."""
    if config.hang_timeout_seconds == 0:
        return None

    def fail(report: str) -> None:
        try:
            write_event(config.run_dir, "hang", rank=rank, report=report)
            _print(f"error: rank {rank} exits: {report}")
        finally:
            os._exit(EXIT_HANG)  # the training thread waits in a collective that no exception reaches

    watchdog = Watchdog(
        Path(config.run_dir) / "heartbeats",
        rank=rank,
        world_size=world_size,
        timeout_seconds=config.hang_timeout_seconds,
        fail=fail,
    )
    watchdog.start()
    return watchdog


def _print(text: str) -> None:
    """Print to stderr, which may lead to a host that is gone: then writing fails, or never returns."""
    printing = threading.Thread(target=print, args=(text,), kwargs={"file": sys.stderr, "flush": True}, daemon=True)
    printing.start()
    printing.join(timeout=_SECONDS_TO_PRINT)
