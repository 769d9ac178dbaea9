"""Bad numbers: a NaN or Inf in a loss or gradient of any rank is seen by all in the same step, and updates nothing."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.engine import DeepSpeedEngine

from train.processes.agreement import Agreement
from train.processes.waiting import waiting


class NonFiniteError(Exception):
    """More steps had NaN or Inf than the run may leave out."""


class NonFiniteGuard:
    """Stands before the optimizer: it updates only where every loss and gradient of every rank is finite.

    DeepSpeed alone would leave such a step out in some of its optimizers and take it in others, in silence in both.
    """

    def __init__(self, engine: DeepSpeedEngine, agreement: Agreement):
        self._engine, self._agreement = engine, agreement
        self._losses: list[torch.Tensor] = []
        self.was_bad = False
        optimizer = engine.optimizer
        if hasattr(optimizer, "check_grad_overflow"):  # ZeRO 1, 2 and 3 know how to leave a step out
            optimizer.check_grad_overflow = True
            optimizer.check_overflow = lambda *_, **__: setattr(optimizer, "overflow", self._judge())
        else:
            self._wrap_step(optimizer)

    def see(self, loss: torch.Tensor) -> None:
        """Remember a micro-batch's loss, still on its device."""
        self._losses.append(loss)

    def _judge(self) -> bool:
        """Whether the step is bad. Collective over all ranks."""
        numbers = [*self._losses, *torch._foreach_norm(_gradients(self._engine))]
        with waiting():  # on a GPU, for the collectives that the gradients come from
            is_bad = not torch.stack([number.float() for number in numbers]).isfinite().all().item()
        self._losses = []
        self.was_bad = self._agreement.any(is_bad)
        return self.was_bad

    def _wrap_step(self, optimizer) -> None:
        update = optimizer.step

        def step(*arguments, **keywords):
            optimizer.overflow = self._judge()  # the engine asks for it afterwards
            if not optimizer.overflow:
                return update(*arguments, **keywords)
            if isinstance(optimizer, BF16_Optimizer):
                optimizer.clear_hp_grads()
                optimizer.clear_lp_grads()

        optimizer.step = step


def _gradients(engine: DeepSpeedEngine) -> list[torch.Tensor]:
    """What this rank is about to update with."""
    optimizer = engine.optimizer
    if isinstance(optimizer, BF16_Optimizer):
        return [gradient for group in optimizer.fp32_groups_gradients for gradient in group]
    if hasattr(optimizer, "averaged_gradients"):
        return [gradient for group in optimizer.averaged_gradients.values() for gradient in group or []]
    return [parameter.grad for parameter in engine.module.parameters() if parameter.grad is not None]


def describe_nonfinite_step(
    folder: Path, *, step: int, rank: int, sample_ids: np.ndarray, dropout_seed: int, losses: list[float]
) -> None:
    """Write what this rank needs to do the step once more into step_N_rank_R.json, if the disk takes it."""
    facts = {"step": step, "rank": rank, "sample_ids": sample_ids.tolist(), "dropout_seed": dropout_seed}
    with suppress(OSError):  # a full disk is no reason to end a run that may leave the step out
        folder.mkdir(exist_ok=True)
        path = folder / f"step_{step:08d}_rank_{rank:05d}.json"
        path.write_text(json.dumps(facts | {"losses": [str(loss) for loss in losses]}, indent=1))
