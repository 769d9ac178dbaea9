"""RunLog: reports a run on the screen, in metrics.jsonl, to DeepSpeed's monitors and as plots."""

import dataclasses
import resource
import sys
from pathlib import Path

import deepspeed.comm as dist
import numpy as np
import torch
from deepspeed.runtime.engine import DeepSpeedEngine
from tqdm import tqdm

from data_prep.tables.expert_load import rank_load, worst_max_over_mean
from models.routes import RoutingRecord
from train.config.run_config import RunConfig
from train.metrics.log_table import table_head, table_row
from train.metrics.log_window import LogWindow, WindowSummary
from train.metrics.metrics_file import MetricsFile, Record, read_points
from train.metrics.plots import plot_expert_load, plot_loss, plot_routing
from train.metrics.records import ExpertLoadRecord, TrainRecord, ValidationRecord
from train.metrics.validation import Validation, perplexity
from train.processes.agreement import gather

_NOT_MONITORED = ("step", "num_tokens")  # the axis, and a constant


class RunLog:
    """Collects on every rank and reports on rank 0. Ranks communicate only when a line of the log is due."""

    def __init__(self, config: RunConfig, *, predicted_load: np.ndarray | None, first_step: int):
        self.config = config
        self.predicted_load = predicted_load
        self._window = LogWindow(config)
        self._total_load_LE = np.zeros((len(config.sparse_layers), config.num_experts), np.int64)
        self._writes = dist.get_rank() == 0
        if self._writes:
            self._file = MetricsFile(Path(config.run_dir) / "metrics.jsonl")
            self._bar = tqdm(total=config.max_steps, initial=first_step, unit="step", disable=not sys.stderr.isatty())
            self.print_line(table_head())

    def add_micro_batch(self, loss: torch.Tensor, records: dict[int, RoutingRecord]) -> None:
        self._window.add_micro_batch(loss, records)

    def discard(self, num_micro_batches: int) -> None:
        """Discard the losses and routing of a skipped step."""
        self._window.discard(num_micro_batches)

    def step_done(
        self, engine: DeepSpeedEngine, step: int, *, learning_rate: float, seconds_waited: float = 0.0
    ) -> None:
        """Count a step and, if a line is due, report it. Collective over all ranks at the steps with a line.

        step: steps taken so far. learning_rate: of this step. seconds_waited: for batches, of the step's time.
        """
        self._window.add_step(seconds_waited=seconds_waited)
        if self._writes:
            self._bar.update(1)
        if step % self.config.log_every and step != self.config.max_steps:
            return
        summary = self._window.close(engine.device)
        self._total_load_LE += summary.load_LE
        if self._writes:
            record = self._train_record(engine, step, summary, learning_rate)
            self._report(record, engine, line=table_row(record))

    def validated(self, engine: DeepSpeedEngine, step: int, validation: Validation) -> None:
        if self._writes:
            record = ValidationRecord(
                step=step,
                loss=validation.loss,
                perplexity=validation.perplexity,
                routing_fluctuation=validation.routing_fluctuation,
                num_tokens=validation.num_tokens,
            )
            line = f"{step:8d}  validation: loss {record.loss:.4f}, perplexity {record.perplexity:.2f}"
            self._report(record, engine, line=line)
        self._window.restart_clock()

    def has_validation(self, step: int) -> bool:
        """Whether metrics.jsonl has the validation of a step, as rank 0 finds it. Collective over all ranks."""
        found = self._writes and any(point.step == step for point in read_points(self._file.path, ValidationRecord))
        return gather(found)[0]

    def saved(self, folder: Path) -> None:
        self.print_line(f"          saved {folder}")
        self._window.restart_clock()

    def close(self) -> None:
        """Write the load of every expert and draw the plots."""
        if not self._writes:
            return
        try:
            self._write_expert_loads()
            self._bar.close()
            self._file.close()
            self._draw_plots()
        except OSError as error:  # the trained model is saved already
            self.print_line(f"          log and plots not finished: {error}")

    def print_line(self, text: str) -> None:
        """Print a line on rank 0, above the progress bar."""
        if not self._writes:
            return
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def _train_record(
        self, engine: DeepSpeedEngine, step: int, window: WindowSummary, learning_rate: float
    ) -> TrainRecord:
        tokens_per_step = self.config.global_batch_size * self.config.context_length
        norm = engine.get_global_grad_norm()
        return TrainRecord(
            step=step,
            tokens=step * tokens_per_step,
            loss=window.loss,
            perplexity=perplexity(window.loss),
            tokens_per_second=window.num_steps * tokens_per_step / window.seconds,
            batch_wait_share=window.seconds_waited / window.seconds,
            gradient_norm=None if norm is None else float(norm),
            imbalance=imbalance(window.load_LE),
            predicted_imbalance=imbalance(self.predicted_load),
            rank_imbalance=imbalance(window.load_LE, ep_size=self.config.ep_size),
            peak_memory_bytes=peak_memory_bytes(engine.device),
            learning_rate=learning_rate,
            **window.routing,
        )

    def _report(self, record: Record, engine: DeepSpeedEngine, *, line: str) -> None:
        """Print, write and monitor a record."""
        self.print_line(line)
        self._write(record)
        if engine.monitor.enabled:
            values = {name: v for name, v in dataclasses.asdict(record).items() if isinstance(v, float | int)}
            names = [name for name in values if name not in _NOT_MONITORED]
            engine.monitor.write_events([(f"{record.kind}/{name}", values[name], record.step) for name in names])

    def _write(self, record: Record) -> None:
        try:
            self._file.write(record)
        except OSError as error:  # a full disk costs the log, and must not cost the run
            self.print_line(f"          metrics not written: {error}")

    def _write_expert_loads(self) -> None:
        for index, layer in enumerate(self.config.sparse_layers):
            if not self._total_load_LE[index].any():
                continue  # a finished run that was resumed took no steps, and keeps the load it has
            predicted = None if self.predicted_load is None else self.predicted_load[index].tolist()
            self._write(ExpertLoadRecord(layer, observed=self._total_load_LE[index].tolist(), predicted=predicted))

    def _draw_plots(self) -> None:
        plots = Path(self.config.run_dir) / "plots"
        plots.mkdir(exist_ok=True)
        plot_loss(self._file.path, plots / "loss.png")
        if self.config.sparse_layers:
            plot_expert_load(self._file.path, plots / "expert_load.png")
            plot_routing(self._file.path, plots / "routing.png")
        self.print_line(f"          plots in {plots}")


def imbalance(load_LE: np.ndarray | None, *, ep_size: int | None = None) -> float | None:
    """Largest max / mean of any layer, over experts or over ep_size ranks; None if any layer lacks a load."""
    if load_LE is None or load_LE.size == 0 or not load_LE.any(axis=1).all():
        return None
    return worst_max_over_mean(rank_load(load_LE, ep_size) if ep_size else load_LE)


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory that this rank ever held: allocated on an accelerator, resident on a CPU."""
    if device.type == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
    return torch.cuda.max_memory_allocated(device)
