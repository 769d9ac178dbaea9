"""One training step: the micro-batches of this rank forward and backward, then one optimizer step."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from deepspeed.runtime.engine import DeepSpeedEngine

from models.routes import add_auxiliary_losses
from train.data.batches import Batch
from train.faults.supervision import Supervision
from train.metrics.run_log import RunLog


def train_step(
    engine: DeepSpeedEngine, micro_batches: Iterable[Batch], log: RunLog, watch: Supervision | None = None
) -> list[torch.Tensor]:
    """Collective over all ranks. DeepSpeed takes the optimizer step after the last micro-batch.

    Returns the cross-entropies; the auxiliary losses of learned routers are in the gradients and in the log.
    """
    losses = []
    for batch in micro_batches:
        outputs = engine(batch.input_ids, plans=batch.plans, use_cache=False, **batch.known)
        # Every rank has the same number of targets, so the mean of the ranks' gradients is the global gradient.
        loss = F.cross_entropy(outputs.logits.flatten(0, 1).float(), batch.targets.flatten())
        engine.backward(add_auxiliary_losses(loss, outputs.routing))
        losses.append(loss.detach())
        if watch:
            watch.record_loss(losses[-1])
        engine.step()
        log.add_micro_batch(losses[-1], outputs.routing)
    return losses
