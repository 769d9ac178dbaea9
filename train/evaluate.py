"""Validation: loss and perplexity over held-out sequences, the same number whatever the number of ranks."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import deepspeed.comm as dist
import torch
import torch.nn.functional as F
from deepspeed.runtime.engine import DeepSpeedEngine
from tqdm import tqdm

from train.batches import Batch, PackedSequences, validation_batches
from train.config import RunConfig


@dataclass(frozen=True)
class Validation:
    """loss: mean negative log-likelihood per token in nats. num_tokens: targets it is the mean of."""

    loss: float
    num_tokens: int

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss)


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf


@torch.no_grad()
def validate(
    engine: DeepSpeedEngine, sequences: PackedSequences, config: RunConfig, *, stop_is_due: Callable[[], bool]
) -> Validation | None:
    """Collective over all ranks. Every sequence counts once; batches are filled up where ranks would have none.

    None where stop_is_due(), collective too and asked before each batch, said yes.
    """
    num_sequences = min(config.eval_sequences or sequences.num_sequences, sequences.num_sequences)
    total = torch.zeros((), dtype=torch.float64, device=engine.device)
    engine.eval()
    batches = validation_batches(
        sequences,
        num_sequences=num_sequences,
        micro_batch_size=config.micro_batch_size,
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
    )
    hidden = dist.get_rank() > 0 or not sys.stderr.isatty()
    for batch in tqdm(batches, desc="validating", unit="batch", leave=False, disable=hidden):
        if stop_is_due():
            engine.train()
            return None
        total += _summed_loss(engine, batch)
    engine.train()
    dist.all_reduce(total, group=dist.get_world_group())
    num_tokens = num_sequences * config.context_length
    return Validation(loss=total.item() / num_tokens, num_tokens=num_tokens)


def _summed_loss(engine: DeepSpeedEngine, batch: Batch) -> torch.Tensor:
    batch = batch.to(engine.device)
    plans = engine.module.transformer.plan(batch.input_ids, **batch.known)
    logits = engine(batch.input_ids, position_ids=batch.position_ids, plans=plans, use_cache=False).logits
    losses = F.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten(), reduction="none")
    return (losses.view_as(batch.targets).sum(1) * batch.weights).sum()
