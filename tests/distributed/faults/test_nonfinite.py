"""NaN or Inf on one rank keeps all ranks from updating in that step, and leaves no trace in later steps."""

import pytest
import torch

from tests.distributed.faults.nonfinite_checks import NONFINITE_STEP, skip_a_step
from tests.distributed.ranks import run_ranks

pytestmark = pytest.mark.distributed
ADAM = {
    "optimizer": "adam",
    "lr": 1e-2,
    "schedule": "inverse_sqrt",
    "warmup_steps": 2,
    "max_grad_norm": 1.0,
    "ep_size": 2,
}
WAYS = [
    {**ADAM, "zero_stage": 0, "kind": "nan in the loss"},
    {**ADAM, "zero_stage": 1, "kind": "nan in the loss"},
    {**ADAM, "zero_stage": 1, "max_grad_norm": 0.0, "kind": "inf in the gradient"},
    {**ADAM, "zero_stage": 2, "kind": "inf in the gradient"},
    {**ADAM, "zero_stage": 2, "precision": "bf16", "kind": "nan in the loss"},
    {**ADAM, "zero_stage": 1, "precision": "bf16", "kind": "inf in the gradient"},
    {**ADAM, "zero_stage": 1, "grad_norm_scope": "shared", "kind": "nan in the loss"},
    {**ADAM, "zero_stage": 3, "ep_size": 1, "kind": "nan in the loss"},
]


def test_a_non_finite_step_leaves_the_state_of_a_run_without_it(tmp_path):
    for of_rank in run_ranks(skip_a_step, 2, configs=WAYS, folder=str(tmp_path)):
        for way, result in zip(WAYS, of_rank, strict=True):
            assert result["nonfinite_steps"] == [NONFINITE_STEP] and result["none"] == [], way
            assert result["met"].keys() == result["without"].keys()
            for name, values in result["met"].items():
                assert torch.equal(values, result["without"][name]), (way, name)
