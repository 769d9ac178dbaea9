"""capped_choice: how strongly each expert chooses each token, with a cap on the experts per token."""

import math

import torch

NUM_ITERATIONS = 100
# As Zhou et al. (2022, section 3.2), but reached from above: with 1e-3 from the start, the sums of most rows would be
# far too small after 100 iterations, since the logarithms of A must travel about 1 / ENTROPY_WEIGHT.
ENTROPY_WEIGHT, FIRST_ENTROPY_WEIGHT = 1e-3, 0.1


@torch.no_grad()
def capped_choice(affinity_ET: torch.Tensor, *, tokens_per_expert: int, cap: int) -> torch.Tensor:
    """The A [E, T] that nearly maximises sum(A * affinity) + ENTROPY_WEIGHT * entropy(A), by Dykstra's algorithm.

    Rows sum to tokens_per_expert, columns to at most cap, and no entry exceeds 1. Each iteration meets the three
    conditions in turn, and keeps only their prices: A = exp((affinity + row - column - entry) / weight).
    """
    column_1T = torch.zeros_like(affinity_ET[:1])
    entry_ET = torch.zeros_like(affinity_ET)
    for iteration in range(NUM_ITERATIONS):
        progress = iteration / (NUM_ITERATIONS - 1)
        weight = FIRST_ENTROPY_WEIGHT * (ENTROPY_WEIGHT / FIRST_ENTROPY_WEIGHT) ** progress
        sums_E1 = ((affinity_ET - column_1T - entry_ET) / weight).logsumexp(1, keepdim=True)
        wanted_ET = affinity_ET + weight * (math.log(tokens_per_expert) - sums_E1)
        sums_1T = ((wanted_ET - entry_ET) / weight).logsumexp(0, keepdim=True)
        column_1T = (weight * (sums_1T - math.log(cap))).clamp(min=0)
        entry_ET = (wanted_ET - column_1T).clamp(min=0)
    return ((wanted_ET - column_1T - entry_ET) / weight).exp()
