"""The check before timing: variants must have equal outputs and gradients."""

import torch
import torch.distributed as dist

from launch.benchmark.layers.case import Case
from launch.benchmark.layers.ours import Variant

# Largest allowed difference relative to the largest value: float32 sums in another order, bfloat16 rounds to 8 bits.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


def check_variants(variants: dict[str, Variant], case: Case) -> None:
    """RuntimeError, naming variant, difference and tolerance, if a variant differs from the one that it must equal.

    Collective over all ranks; if one differs, all raise. The gradients of the experts are compared by their norm,
    since the variants store them differently.
    """
    for name, variant in variants.items():
        if variant.equals is None:
            continue
        found, expected = results(variant, case), results(variants[variant.equals], case)
        for value in expected:
            difference = _difference(found[value], expected[value])
            if case.ep_size > 1:
                dist.all_reduce(difference, op=dist.ReduceOp.MAX)
            tolerance = TOLERANCE[case.hidden_BSD.dtype]
            if not difference <= tolerance:
                raise RuntimeError(
                    f"{name} differs from {variant.equals} in its {value} by {difference.item():.1e} of the largest "
                    f"value, more than {tolerance:.0e}: they do not compute the same, so nothing was timed"
                )


def results(variant: Variant, case: Case) -> dict[str, torch.Tensor]:
    """Outputs, gradient of the hidden states, and norm of the weights' gradients of one pass."""
    hidden_BSD = case.hidden_BSD.detach().requires_grad_()
    outputs_BSD = variant(hidden_BSD)
    outputs_BSD.backward(case.grad_BSD)
    # In float64: the norm must not depend on how the gradient is split into experts.
    gradients = [parameter.grad for parameter in variant.parameters() if parameter.grad is not None]
    norms = [torch.linalg.vector_norm(gradient, dtype=torch.float64) for gradient in gradients]
    variant.zero_grad(set_to_none=True)
    return {
        "outputs": outputs_BSD.detach(),
        "hidden states' gradient": hidden_BSD.grad,
        "weights' gradient norm": torch.stack(norms).norm(),
    }


def _difference(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return (found - expected).abs().max().double() / expected.abs().max().double()
