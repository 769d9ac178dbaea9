"""The rows of a benchmark's result: the measurements of all ranks, reduced to one row per variant and case."""

from dataclasses import dataclass

import numpy as np

from data_prep.tables.expert_load import max_over_mean
from launch.benchmark.quantiles import Quantiles, quantiles

MIB = 2**20


@dataclass(frozen=True)
class Row:
    """One variant in one case. Times are milliseconds of the slowest rank, memory and traffic are MiB per rank."""

    ep_size: int
    num_experts: int
    tokens_per_rank: int
    variant: str
    repetitions: int
    forward: Quantiles
    backward: Quantiles
    total: Quantiles  # forward and backward together
    ratio: Quantiles  # total divided by the dense layer's in the same repetition
    # Six matmuls [T, d] @ [d, D], the arithmetic of both passes, and writing the gradients of the matrices into new
    # memory, each at the speed that was measured for it alone.
    floor: float
    planning: Quantiles  # making the hash layer's dispatch plans, which no other time of the variant contains
    tokens_per_second: float  # of all ranks together
    forward_peak: float  # allocated by a forward pass, on the fullest rank
    peak: float  # by both passes, gradients of weights included, on the fullest rank
    sent: float  # mean over ranks
    sent_bound: float  # the least that these routes need, mean over ranks
    dropped: float  # share of tokens
    imbalance: float  # tokens of the table's fullest expert / mean
    matmul_teraflops: float  # arithmetic per second of one matmul [T, d] @ [d, D] on one rank, the ceiling
    matmul_share: float  # the variant's useful arithmetic per second / that ceiling
    synchronizes: str | None  # where a GPU makes the host wait; "" nowhere, None not tried


def make_rows(ranks: list[list[dict]]) -> list[Row]:
    """ranks: the results of measure_cases by rank, that is, the same cases in the same order."""
    return [_row(case, variant) for case in zip(*ranks, strict=True) for variant in case[0]["variants"]]


def _row(ranks: tuple[dict, ...], variant: str) -> Row:
    first = ranks[0]
    forward, backward = (_slowest(ranks, variant, name) for name in ("forward_seconds", "backward_seconds"))
    total = forward + backward
    matmul = float(np.median(_slowest_of_case(ranks, "matmul_seconds")))
    return Row(
        ep_size=len(ranks),
        num_experts=first["num_experts"],
        tokens_per_rank=first["tokens_per_rank"],
        variant=variant,
        repetitions=len(total),
        forward=quantiles(forward),
        backward=quantiles(backward),
        total=quantiles(total),
        ratio=quantiles(total / _dense(ranks)[: len(total)]),
        floor=_floor(ranks, variant, matmul=matmul),
        planning=quantiles(_slowest_of_case(ranks, "planning_seconds")),
        tokens_per_second=len(ranks) * first["tokens_per_rank"] / np.median(total) * 1e3,
        imbalance=max_over_mean(_tokens_per_expert(ranks)),
        matmul_teraflops=first["matmul_flops"] / (matmul * 1e9),
        # Forward and backward are 3 times the forward's two matmuls, of which the measured one is half.
        matmul_share=float(3 * 2 * matmul / np.median(total)),
        **_costs(ranks, variant),
    )


def _costs(ranks: tuple[dict, ...], variant: str) -> dict:
    """The fields of a row that are not times."""
    costs = [rank["variants"][variant] for rank in ranks]
    # No expert sends anything for the dense layer.
    bound = 0.0 if variant == "dense" else float(np.mean([rank["bound_bytes"] for rank in ranks]))
    return {
        "forward_peak": max(cost["forward_peak_bytes"] for cost in costs) / MIB,
        "peak": max(cost["peak_bytes"] for cost in costs) / MIB,
        "sent": float(np.mean([cost["sent_bytes"] for cost in costs])) / MIB,
        "sent_bound": bound / MIB,
        "dropped": float(np.mean([cost["dropped_share"] for cost in costs])),
        "synchronizes": costs[0]["synchronizes"],
    }


def _floor(ranks: tuple[dict, ...], variant: str, *, matmul: float) -> float:
    """The dense layer writes the gradients of one expert, the others those of all experts of a rank."""
    fill = float(np.median(_slowest_of_case(ranks, "fill_seconds")))
    num_local_experts = len(_tokens_per_expert(ranks)) / len(ranks)
    return 6 * matmul + (fill / num_local_experts if variant == "dense" else fill)


def _tokens_per_expert(ranks: tuple[dict, ...]) -> np.ndarray:
    return np.sum([rank["tokens_per_expert"] for rank in ranks], axis=0)


def _dense(ranks: tuple[dict, ...]) -> np.ndarray:
    return _slowest(ranks, "dense", "forward_seconds") + _slowest(ranks, "dense", "backward_seconds")


def _slowest(ranks: tuple[dict, ...], variant: str, name: str) -> np.ndarray:
    """Milliseconds of the slowest rank in each repetition: the others wait for it at the next collective."""
    return 1e3 * np.max([rank["variants"][variant][name] for rank in ranks], axis=0)


def _slowest_of_case(ranks: tuple[dict, ...], name: str) -> np.ndarray:
    return 1e3 * np.max([rank[name] for rank in ranks], axis=0)
