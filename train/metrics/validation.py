"""Validation: loss and perplexity over held-out sequences, independent of the number of ranks."""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import deepspeed.comm as dist
import torch
from deepspeed.runtime.engine import DeepSpeedEngine
from tqdm import tqdm

from models.routes import RoutingRecord
from train.config.run_config import RunConfig
from train.data.batches import Batch, PackedSequences, validation_batches
from train.metrics.routing_probe import RoutingProbe


@dataclass(frozen=True)
class Validation:
    """The result of one validation."""

    loss: float  # mean negative log-likelihood per token, in nats
    num_tokens: int  # targets that the loss is the mean over
    routing_fluctuation: float | None = None  # RoutingProbe.fluctuation

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss)


def perplexity(loss: float) -> float:
    """exp(loss), or infinity if that overflows."""
    return math.exp(loss) if loss < 700 else math.inf


@torch.no_grad()
def validate(
    engine: DeepSpeedEngine,
    sequences: PackedSequences,
    config: RunConfig,
    *,
    probe: RoutingProbe,
    stop_is_due: Callable[[], bool],
) -> Validation | None:
    """Validate on every sequence once. Collective over all ranks.

    Batches are padded so that every rank runs the same number of forward passes. probe sees the routes of the first
    batch. stop_is_due() is collective too and is called before each batch; None if it returns True.
    """
    num_sequences = _num_sequences(sequences, config)
    total = torch.zeros((), dtype=torch.float64, device=engine.device)
    engine.eval()
    batches = _batches(sequences, config)
    hidden = dist.get_rank() > 0 or not sys.stderr.isatty()
    for number, batch in enumerate(tqdm(batches, desc="validating", unit="batch", leave=False, disable=hidden)):
        if stop_is_due():
            engine.train()
            return None
        loss, records = _summed_loss(engine, batch)
        total += loss
        if number == 0:
            probe.see(records)
    engine.train()
    dist.all_reduce(total, group=dist.get_world_group())
    num_tokens = num_sequences * config.context_length
    fluctuation = probe.fluctuation(engine.device)
    return Validation(loss=total.item() / num_tokens, num_tokens=num_tokens, routing_fluctuation=fluctuation)


@torch.no_grad()
def see_routes(engine: DeepSpeedEngine, sequences: PackedSequences, config: RunConfig, *, probe: RoutingProbe) -> None:
    """Show probe the routes of a validation with the current weights. Collective over all ranks."""
    if not probe.is_needed:
        return
    engine.eval()
    _, records = _summed_loss(engine, next(_batches(sequences, config)))
    engine.train()
    probe.see(records)
    probe.fluctuation(engine.device)


def _num_sequences(sequences: PackedSequences, config: RunConfig) -> int:
    return min(config.eval_sequences or sequences.num_sequences, sequences.num_sequences)


def _batches(sequences: PackedSequences, config: RunConfig) -> Iterator[Batch]:
    """The batches of this rank."""
    return validation_batches(
        sequences,
        num_sequences=_num_sequences(sequences, config),
        micro_batch_size=config.micro_batch_size,
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
    )


def _summed_loss(engine: DeepSpeedEngine, batch: Batch) -> tuple[torch.Tensor, dict[int, RoutingRecord]]:
    """The loss summed over the batch without its padding, and the record of each sparse layer."""
    batch = batch.to(engine.device)
    outputs = engine(batch.input_ids, targets=batch.targets, use_cache=False, **batch.known)
    return (outputs.token_losses.sum(1) * batch.weights).sum(), outputs.routing
