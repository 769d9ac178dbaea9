"""LogWindow: the losses, loads and seconds between two lines of the log, and their reduction over all ranks."""

import math
import time
from dataclasses import dataclass

import deepspeed.comm as dist
import numpy as np
import torch

from models.routes import RoutingRecord
from train.config.run_config import RunConfig
from train.metrics.routing_stats import RoutingStats


@dataclass(frozen=True)
class WindowSummary:
    """The measurements of all ranks in one window."""

    num_steps: int
    seconds: float  # of this rank's steps
    seconds_waited: float  # for batches, within them
    loss: float  # mean over micro-batches and ranks
    load_LE: np.ndarray  # tokens per expert of each sparse layer, summed over ranks
    routing: dict[str, float | None]  # RoutingStats.take


class LogWindow:
    """Collects on every rank without waiting for the device or for other ranks, until it is closed."""

    def __init__(self, config: RunConfig):
        self._sparse_layers = config.sparse_layers
        self._shape = (len(config.sparse_layers), config.num_experts)
        self._routing = RoutingStats(config)
        self._open()
        self.restart_clock()

    def _open(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._load_LE = np.zeros(self._shape, np.int64)
        self._num_steps, self._seconds, self._seconds_waited = 0, 0.0, 0.0

    def add_micro_batch(self, loss: torch.Tensor, records: dict[int, RoutingRecord]) -> None:
        """Keep a loss, still on its device, and the record of each sparse layer, by the index of its block."""
        self._losses.append(loss)
        self._routing.add(records)
        for index, layer in enumerate(self._sparse_layers):
            self._load_LE[index] += records[layer].tokens_per_expert

    def discard(self, num_micro_batches: int) -> None:
        """Discard the losses and routing of a skipped step; its tokens did reach the experts, so the load stays."""
        del self._losses[len(self._losses) - num_micro_batches :]
        self._routing.discard(num_micro_batches)

    def add_step(self, *, seconds_waited: float) -> None:
        """Count a step and the seconds since the clock restarted."""
        self._num_steps += 1
        self._seconds += time.perf_counter() - self._start
        self._seconds_waited += seconds_waited
        self.restart_clock()

    def restart_clock(self) -> None:
        """Do not count the seconds since the last step, of a validation or a checkpoint."""
        self._start = time.perf_counter()

    def close(self, device: torch.device) -> WindowSummary:
        """Reduce the window and open the next one. Collective over all ranks."""
        loss, load_LE = self._reduce(device)
        routing = self._routing.take(device)
        summary = WindowSummary(self._num_steps, self._seconds, self._seconds_waited, loss, load_LE, routing)
        self._open()
        return summary

    def _reduce(self, device: torch.device) -> tuple[float, np.ndarray]:
        losses = torch.stack(self._losses) if self._losses else torch.full((1,), math.nan, device=device)
        loss = losses.mean().double() / dist.get_world_size()
        load_LE = torch.from_numpy(self._load_LE).to(device)
        dist.all_reduce(loss, group=dist.get_world_group())
        if load_LE.numel():
            dist.all_reduce(load_LE, group=dist.get_world_group())
        return loss.item(), load_LE.cpu().numpy()
