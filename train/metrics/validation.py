"""Validation: loss and perplexity over held-out sequences, the same number whatever the number of ranks."""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import deepspeed.comm as dist
import torch
import torch.nn.functional as F
from deepspeed.runtime.engine import DeepSpeedEngine
from tqdm import tqdm

from models.routes import RoutingRecord
from train.config.run_config import RunConfig
from train.data.batches import Batch, PackedSequences, validation_batches
from train.metrics.routing_probe import RoutingProbe


@dataclass(frozen=True)
class Validation:
    """loss: mean negative log-likelihood per token in nats. num_tokens: targets it is the mean of.

    routing_fluctuation: as RoutingProbe.fluctuation.
    """

    loss: float
    num_tokens: int
    routing_fluctuation: float | None = None

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss)


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that overflows."""
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
    """Collective over all ranks. Every sequence counts once; batches are filled up where ranks would have none.

    probe sees the routes of the first batch. None where stop_is_due(), collective too and asked before each batch,
    said yes.
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
    """Show probe the routes that a validation would show it with the weights as they are. Collective over all ranks."""
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
    """This rank's."""
    return validation_batches(
        sequences,
        num_sequences=_num_sequences(sequences, config),
        micro_batch_size=config.micro_batch_size,
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
    )


def _summed_loss(engine: DeepSpeedEngine, batch: Batch) -> tuple[torch.Tensor, dict[int, RoutingRecord]]:
    """The loss of the sequences that count, and what each sparse layer reports."""
    batch = batch.to(engine.device)
    outputs = engine(batch.input_ids, use_cache=False, **batch.known)
    losses = F.cross_entropy(outputs.logits.flatten(0, 1).float(), batch.targets.flatten(), reduction="none")
    return (losses.view_as(batch.targets).sum(1) * batch.weights).sum(), outputs.routing
