"""One training step: the micro-batches of this rank forward and backward, then one optimizer step."""

from collections.abc import Iterable

import torch
from deepspeed.runtime.engine import DeepSpeedEngine

from models.routes import RoutingRecord, add_auxiliary_losses
from train.data.batches import Batch
from train.faults.supervision import Supervision
from train.metrics.run_log import RunLog


def train_step(
    engine: DeepSpeedEngine,
    micro_batches: Iterable[Batch],
    log: RunLog | None = None,
    watch: Supervision | None = None,
) -> list[torch.Tensor]:
    """Collective over all ranks. DeepSpeed takes the optimizer step after the last micro-batch.

    Returns the cross-entropies; the auxiliary losses of learned routers are in the gradients and in the log.
    """
    losses = []
    for batch in micro_batches:
        loss, records = forward(engine, batch)
        engine.backward(add_auxiliary_losses(loss, records))
        losses.append(loss.detach())
        if watch:
            watch.record_loss(losses[-1])
        engine.step()
        if log:
            log.add_micro_batch(losses[-1], records)
    return losses


def forward(engine: DeepSpeedEngine, batch: Batch) -> tuple[torch.Tensor, dict[int, RoutingRecord]]:
    """The cross-entropy, and the record of each sparse layer.

    Every rank has the same number of targets, so the mean of the ranks' gradients is the global gradient.
    """
    outputs = engine(batch.input_ids, plans=batch.plans, targets=batch.targets, use_cache=False, **batch.known)
    return outputs.loss, outputs.routing
