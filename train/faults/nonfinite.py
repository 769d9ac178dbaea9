"""Non-finite values: after a NaN or Inf in a loss or gradient of any rank, all ranks skip the update of that step."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.engine import DeepSpeedEngine

from train.processes.waiting import waiting


class NonFiniteError(Exception):
    """More steps had NaN or Inf than the run may skip."""


class NonFiniteGuard:
    """Stands before the optimizer, which updates only if every loss and gradient of every rank is finite.

    DeepSpeed alone would skip a non-finite step in some of its optimizers and take it in others, silently in both.

    was_nonfinite: whether the last step was.
    """

    def __init__(self, engine: DeepSpeedEngine, agree: Callable[[bool], bool]):
        """agree: whether the value is true on any rank, collective over all ranks; called once per step."""
        self._engine, self._agree = engine, agree
        self._losses: list[torch.Tensor] = []
        self.was_nonfinite = False
        optimizer = engine.optimizer
        if hasattr(optimizer, "check_grad_overflow"):  # ZeRO 1, 2 and 3 can skip a step
            optimizer.check_grad_overflow = True
            optimizer.check_overflow = lambda *_, **__: setattr(optimizer, "overflow", self._judge())
        else:
            self._wrap_step(optimizer)

    def record_loss(self, loss: torch.Tensor) -> None:
        """Keep a micro-batch's loss, on its device, for the judgement of the step."""
        self._losses.append(loss)

    def _judge(self) -> bool:
        """Whether the step is non-finite. Collective over all ranks."""
        values = [*self._losses, *torch._foreach_norm(_gradients(self._engine))]
        with waiting():  # a GPU first completes the collectives that the gradients come from
            is_nonfinite = not torch.stack([value.float() for value in values]).isfinite().all().item()
        self._losses = []
        self.was_nonfinite = self._agree(is_nonfinite)
        return self.was_nonfinite

    def _wrap_step(self, optimizer) -> None:
        update = optimizer.step

        def step(*arguments, **keywords):
            optimizer.overflow = self._judge()  # the engine reads it afterwards
            if not optimizer.overflow:
                return update(*arguments, **keywords)
            if isinstance(optimizer, BF16_Optimizer):
                optimizer.clear_hp_grads()
                optimizer.clear_lp_grads()

        optimizer.step = step


def _gradients(engine: DeepSpeedEngine) -> list[torch.Tensor]:
    """The gradients that this rank is about to update with."""
    optimizer = engine.optimizer
    if isinstance(optimizer, BF16_Optimizer):
        return [gradient for group in optimizer.fp32_groups_gradients for gradient in group]
    if hasattr(optimizer, "averaged_gradients"):
        return [gradient for group in optimizer.averaged_gradients.values() for gradient in group or []]
    return [parameter.grad for parameter in engine.module.parameters() if parameter.grad is not None]


def describe_nonfinite_step(
    folder: Path, *, step: int, rank: int, sample_ids: np.ndarray, dropout_seed: int, losses: list[float]
) -> None:
    """Write what this rank needs to replay the step into step_N_rank_R.json, if the disk has room."""
    facts = {"step": step, "rank": rank, "sample_ids": sample_ids.tolist(), "dropout_seed": dropout_seed}
    with suppress(OSError):  # a full disk is no reason to end a run that may skip the step
        folder.mkdir(exist_ok=True)
        path = folder / f"step_{step:08d}_rank_{rank:05d}.json"
        path.write_text(json.dumps(facts | {"losses": [str(loss) for loss in losses]}, indent=1))
