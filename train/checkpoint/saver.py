"""Saver: a run's checkpoints, written while training waits, or in the background from a copy in host memory."""

import threading
import traceback
from pathlib import Path

from deepspeed.runtime.engine import DeepSpeedEngine

from train.checkpoint.checkpoint import facts_of_run, save_checkpoint, take_snapshot
from train.checkpoint.commit import CheckpointError, Snapshot
from train.checkpoint.export import ModelExport
from train.checkpoint.host_copy import HostCopy
from train.config.run_config import RunConfig
from train.processes.agreement import Agreement, AllRanks


class Saver:
    """Every method is collective over all ranks. At most one checkpoint is in flight.

    If a checkpoint cannot be written, the method that learns of it raises CheckpointError on all ranks.
    """

    def __init__(self, engine: DeepSpeedEngine, config: RunConfig, *, resume_compatibility: dict, tokenizer_dir: Path):
        self._engine, self._config = engine, config
        # Made before training: the facts take longer than the copy of a small state.
        self._export = ModelExport(engine.module, tokenizer_dir)
        self._facts = facts_of_run(config, self._export, resume_compatibility)
        self._host_copy = HostCopy() if config.async_save else None
        self._thread: threading.Thread | None = None
        self._outcome: Path | CheckpointError | None = None
        if config.async_save:
            # Groups of their own: the writing thread must not mix its collectives with those of the training.
            self._writers, self._agreement = Agreement(), Agreement()

    def save(self, *, step: int, num_skipped: int) -> Path | None:
        """The checkpoint's path, or None if it is written in the background; then poll() or wait() returns the path.

        RuntimeError if a checkpoint is in flight, whose copy this one would overwrite.
        """
        if self._thread is not None:
            raise RuntimeError(f"the checkpoint before step {step} is still in flight; wait() for it first")
        snapshot = take_snapshot(
            self._engine,
            self._config,
            step=step,
            num_skipped=num_skipped,
            facts=self._facts,
            export=self._export,
            host_copy=self._host_copy,
        )
        if not self._config.async_save:
            return save_checkpoint(snapshot, self._config, AllRanks())
        self._thread = threading.Thread(target=self._write, args=(snapshot,), daemon=True, name="checkpoint")
        self._thread.start()
        return None

    def poll(self) -> Path | None:
        """The checkpoint in flight if every rank has written it, else None."""
        if self._thread is None or self._agreement.any(self._thread.is_alive()):
            return None
        return self.wait()

    def wait(self) -> Path | None:
        """Wait for the checkpoint in flight and return it; None if there is none."""
        if self._thread is None:
            return None
        self._thread.join()
        self._thread, outcome = None, self._outcome
        if isinstance(outcome, CheckpointError):
            raise outcome
        return outcome

    def _write(self, snapshot: Snapshot) -> None:
        try:
            self._host_copy.wait()
            self._outcome = save_checkpoint(snapshot, self._config, self._writers)
        except CheckpointError as error:
            self._outcome = error
        except Exception as error:  # a rank is gone, which the training thread will notice by itself
            self._outcome = CheckpointError(f"{error!r}\n{traceback.format_exc()}")
