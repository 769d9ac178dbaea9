"""Refuse to time variants that do not compute the same: outputs and gradients are compared first."""

import torch
import torch.distributed as dist

from train.benchmark_case import Case
from train.benchmark_variants import Variant

# Largest difference allowed, relative to the largest value: float32 sums in another order, bfloat16 rounds to 8 bits.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


def check_variants(variants: dict[str, Variant], case: Case) -> None:
    """RuntimeError, naming variant, difference and tolerance, where one does not compute what it must equal.

    Collective over all ranks, which all raise where one differs. The norm of the experts' gradients stands for them,
    for the variants store them differently.
    """
    for name, variant in variants.items():
        if variant.equals is None:
            continue
        found, expected = results(variant, case), results(variants[variant.equals], case)
        for what in expected:
            difference = _worst(_difference(found[what], expected[what]))
            tolerance = TOLERANCE[case.hidden_BSD.dtype]
            if not difference <= tolerance:
                raise RuntimeError(
                    f"{name} differs from {variant.equals} in its {what} by {difference:.1e} of the largest value, "
                    f"more than {tolerance:.0e}: they do not compute the same, so nothing was timed"
                )


def results(variant: Variant, case: Case) -> dict[str, torch.Tensor]:
    """Outputs, the gradient of the hidden states and the norm of the weights' gradients, of one pass."""
    hidden_BSD = case.hidden_BSD.detach().requires_grad_()
    outputs_BSD = variant(hidden_BSD)
    outputs_BSD.backward(case.grad_BSD)
    # In float64: the norm of one tensor must not depend on how it is cut into experts.
    squares = [p.grad.double().square().sum() for p in variant.parameters() if p.grad is not None]
    variant.zero_grad(set_to_none=True)
    return {
        "outputs": outputs_BSD.detach(),
        "hidden states' gradient": hidden_BSD.grad,
        "weights' gradient norm": torch.stack(squares).sum().sqrt(),
    }


def _difference(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return (found - expected).abs().max().double() / expected.abs().max().double()


def _worst(difference: torch.Tensor) -> float:
    if dist.get_world_size() > 1:
        dist.all_reduce(difference, op=dist.ReduceOp.MAX)
    return difference.item()
