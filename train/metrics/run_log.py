"""RunLog: what a run says of itself, on the screen, in metrics.jsonl, in DeepSpeed's monitors and as plots."""

import json
import math
import resource
import sys
import time
from pathlib import Path
from typing import TextIO

import deepspeed.comm as dist
import numpy as np
import torch
from deepspeed.runtime.engine import DeepSpeedEngine
from tqdm import tqdm

from data_prep.tables.expert_load import rank_load, worst_max_over_mean
from models.routes import RoutingRecord
from train.config.run_config import RunConfig
from train.metrics.metrics_file import read_points
from train.metrics.plots import plot_expert_load, plot_loss, plot_routing
from train.metrics.routing_stats import RoutingStats
from train.metrics.validation import Validation, perplexity
from train.processes.agreement import gather

_COLUMNS = "    step     loss       ppl   tokens/s        lr  |grad|  load (table)  rank load    memory"


class RunLog:
    """Collects on every rank, reports on rank 0. Reductions over ranks happen only where a metric is due."""

    def __init__(self, config: RunConfig, *, predicted_load: np.ndarray | None, first_step: int):
        self.config = config
        self.predicted_load = predicted_load
        self._losses: list[torch.Tensor] = []
        self._routing = RoutingStats(config)
        shape = (len(config.sparse_layers), config.num_experts)
        self._window_load, self._total_load = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._start, self._seconds, self._seconds_waited = time.perf_counter(), 0.0, 0.0
        self._window_step = first_step
        self._writes = dist.get_rank() == 0
        if self._writes:
            self._path = Path(config.run_dir) / "metrics.jsonl"
            self._file = _open_log(self._path)
            self._bar = tqdm(total=config.max_steps, initial=first_step, unit="step", disable=not sys.stderr.isatty())
            self.say(_COLUMNS)

    def add_micro_batch(self, loss: torch.Tensor, records: dict[int, RoutingRecord]) -> None:
        """Remember a loss, still on its device, and what each sparse layer reports, by the index of its block."""
        self._losses.append(loss)
        self._routing.add(records)
        for index, layer in enumerate(self.config.sparse_layers):
            self._window_load[index] += records[layer].tokens_per_expert

    def leave_out(self, num_micro_batches: int) -> None:
        """Forget the losses of a step that updated nothing, and what its routers said."""
        del self._losses[len(self._losses) - num_micro_batches :]
        self._routing.leave_out(num_micro_batches)

    def step_done(
        self, engine: DeepSpeedEngine, step: int, *, learning_rate: float, seconds_waited: float = 0.0
    ) -> None:
        """Collective over all ranks at the steps where metrics are due.

        learning_rate: of the step that was done. seconds_waited: of its time, those spent waiting for batches.
        """
        self._seconds += time.perf_counter() - self._start
        self._seconds_waited += seconds_waited
        self._start = time.perf_counter()
        if self._writes:
            self._bar.update(1)
        if step % self.config.log_every and step != self.config.max_steps:
            return
        loss, load = self._reduce(engine.device)
        routing = self._routing.take(engine.device)
        if self._writes:
            record = self._train_record(engine, step, loss, load) | routing | {"learning_rate": learning_rate}
            self.say(_row(record))
            self._write(record)
            self._send_to_monitors(engine, "train", record, step)
        self._losses, self._window_load = [], np.zeros_like(self._window_load)
        self._seconds, self._seconds_waited, self._window_step = 0.0, 0.0, step

    def validated(self, engine: DeepSpeedEngine, step: int, validation: Validation) -> None:
        if self._writes:
            self.say(f"{step:8d}  validation: loss {validation.loss:.4f}, perplexity {validation.perplexity:.2f}")
            values = {
                "loss": validation.loss,
                "perplexity": validation.perplexity,
                "routing_fluctuation": validation.routing_fluctuation,
            }
            self._write({"kind": "valid", "step": step, **values, "tokens": validation.num_tokens})
            self._send_to_monitors(engine, "valid", values, step)
        self._start = time.perf_counter()  # tokens/s are those of training

    def has_validation(self, step: int) -> bool:
        """Whether metrics.jsonl has the validation of a step; what rank 0 finds. Collective over all ranks."""
        found = self._writes and any(point["step"] == step for point in read_points(self._path, kind="valid"))
        return gather(found)[0]

    def saved(self, folder: Path) -> None:
        if self._writes:
            self.say(f"          saved {folder}")
        self._start = time.perf_counter()

    def close(self) -> None:
        """Write the load of every expert and draw the plots."""
        if not self._writes:
            return
        try:
            self._finish()
        except OSError as error:  # what was trained is saved already
            self.say(f"          log and plots not finished: {error}")

    def _finish(self) -> None:
        for index, layer in enumerate(self.config.sparse_layers):
            if not self._total_load[index].any():
                continue  # a finished run that was resumed did no step, and keeps the load it has
            self._write(
                {"kind": "expert_load", "layer": layer, "observed": self._total_load[index].tolist(),
                 "predicted": None if self.predicted_load is None else self.predicted_load[index].tolist()}
            )  # fmt: skip
        self._bar.close()
        self._file.close()
        plots = Path(self.config.run_dir) / "plots"
        plots.mkdir(exist_ok=True)
        plot_loss(self._path, plots / "loss.png")
        if self.config.sparse_layers:
            plot_expert_load(self._path, plots / "expert_load.png")
            plot_routing(self._path, plots / "routing.png")
        self.say(f"          plots in {plots}")

    def _reduce(self, device: torch.device) -> tuple[float, np.ndarray]:
        """Mean loss and summed load of all ranks since the last report."""
        losses = torch.stack(self._losses) if self._losses else torch.full((1,), math.nan, device=device)
        loss = losses.mean().double() / dist.get_world_size()
        load = torch.from_numpy(self._window_load).to(device)
        dist.all_reduce(loss, group=dist.get_world_group())
        if load.numel():
            dist.all_reduce(load, group=dist.get_world_group())
        load = load.cpu().numpy()
        self._total_load += load
        return loss.item(), load

    def _train_record(self, engine: DeepSpeedEngine, step: int, loss: float, load: np.ndarray) -> dict:
        tokens_per_step = self.config.global_batch_size * self.config.context_length
        norm = engine.get_global_grad_norm()
        return {
            "kind": "train",
            "step": step,
            "tokens": step * tokens_per_step,
            "loss": loss,
            "perplexity": perplexity(loss),
            "tokens_per_second": (step - self._window_step) * tokens_per_step / self._seconds,
            "share_waited_for_batches": self._seconds_waited / self._seconds,
            "gradient_norm": None if norm is None else float(norm),
            "load_max_over_mean": imbalance(load),
            "predicted_load_max_over_mean": imbalance(self.predicted_load),
            "rank_load_max_over_mean": imbalance(rank_load(load, self.config.ep_size)),
            "peak_memory_bytes": peak_memory_bytes(engine.device),
        }

    def _send_to_monitors(self, engine: DeepSpeedEngine, kind: str, record: dict, step: int) -> None:
        if engine.monitor.enabled:
            names = [name for name, value in record.items() if isinstance(value, float | int) and name != "step"]
            engine.monitor.write_events([(f"{kind}/{name}", record[name], step) for name in names])

    def _write(self, record: dict) -> None:
        finite = {name: None if _is_not_finite(value) else value for name, value in record.items()}
        try:
            self._file.write(json.dumps(finite) + "\n")
        except OSError as error:  # a full disk takes the log, and must not take the run
            self.say(f"          metrics of step {record.get('step')} not written: {error}")

    def say(self, text: str) -> None:
        """Print a line on rank 0, above the progress bar."""
        if not self._writes:
            return
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()


def imbalance(load_LE: np.ndarray | None) -> float | None:
    """Largest max / mean of any layer; None without sparse layers."""
    if load_LE is None or load_LE.size == 0 or load_LE.sum() == 0:
        return None
    return worst_max_over_mean(load_LE)


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory this rank ever held: allocated on an accelerator, resident on a CPU."""
    if device.type == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
    return torch.cuda.max_memory_allocated(device)


def _row(record: dict) -> str:
    load = f"{_cell(record['load_max_over_mean'])} ({_cell(record['predicted_load_max_over_mean'])})"
    return (
        f"{record['step']:8d}  {record['loss']:7.4f}  {record['perplexity']:8.2f}  "
        f"{record['tokens_per_second']:9,.0f}  {record['learning_rate']:8.2e}  {_cell(record['gradient_norm']):>6}  "
        f"{load:>12}  {_cell(record['rank_load_max_over_mean']):>9}  {record['peak_memory_bytes'] / 2**20:6,.0f} M"
    )


def _open_log(path: Path) -> TextIO:
    """Open for appending, a line at a time, so that a killed run keeps its log; a line that was cut off is ended."""
    file = open(path, "a+", buffering=1)
    file.seek(0)
    text = file.read()
    if text and not text.endswith("\n"):
        file.write("\n")
    return file


def _is_not_finite(value) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
