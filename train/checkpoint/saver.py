"""Saver: a run's checkpoints, written while training waits, or behind its back from a copy of its state."""

import threading
import traceback
from pathlib import Path

from deepspeed.runtime.engine import DeepSpeedEngine

from train.checkpoint.checkpoint import prepare_checkpoint, save_checkpoint
from train.checkpoint.commit import CheckpointError
from train.config.run_config import RunConfig
from train.inputs import Inputs
from train.processes.agreement import Agreement


class Saver:
    """Every method is collective over all ranks. At most one checkpoint is in flight.

    CheckpointError, on all ranks alike, is raised by the method that learns that a checkpoint could not be written.
    """

    def __init__(self, engine: DeepSpeedEngine, config: RunConfig, inputs: Inputs):
        self._engine, self._config, self._inputs = engine, config, inputs
        self._thread: threading.Thread | None = None
        self._outcome: Path | CheckpointError | None = None
        if config.async_save:
            # Of its own, on hosts: the writing thread must not mix its collectives with those of the training.
            self._writers, self._agreement = Agreement(), Agreement()

    def save(self, *, step: int, num_skipped: int) -> Path | None:
        """The checkpoint's path, or None where it is only on its way: finished() or finish() will tell."""
        arguments = (self._engine, self._config, self._inputs)
        if not self._config.async_save:
            return save_checkpoint(*arguments, step=step, num_skipped=num_skipped)
        commit = prepare_checkpoint(*arguments, step=step, num_skipped=num_skipped, copy=True)
        self._thread = threading.Thread(target=self._write, args=(commit,), daemon=True, name="checkpoint")
        self._thread.start()
        return None

    def finished(self) -> Path | None:
        """The checkpoint that was in flight, if it has arrived on every rank."""
        if self._thread is None or self._agreement.any(self._thread.is_alive()):
            return None
        return self.finish()

    def finish(self) -> Path | None:
        """Wait for the checkpoint in flight, if there is one."""
        if self._thread is None:
            return None
        self._thread.join()
        self._thread, outcome = None, self._outcome
        if isinstance(outcome, CheckpointError):
            raise outcome
        return outcome

    def _write(self, commit) -> None:
        try:
            self._outcome = commit(self._writers.gather)
        except CheckpointError as error:
            self._outcome = error
        except Exception as error:  # a rank is gone, which the training thread will notice by itself
            self._outcome = CheckpointError(f"{error!r}\n{traceback.format_exc()}")
