"""The rows of a benchmark's result: the measurements of all ranks, brought to one line per variant and case."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Median and 10th and 90th percentile of the repetitions."""

    median: float
    p10: float
    p90: float


@dataclass(frozen=True)
class Row:
    """One variant in one case; times in milliseconds of the slowest rank, memory and traffic in MiB per rank.

    total: forward and backward together. ratio: total by dense's in the same repetition.
    floor: six matmuls [T, d] @ [d, D], the arithmetic of both passes, and writing the gradients of the matrices into
    new memory, both at the speed that they were measured to have alone.
    plan: making the hash layer's plans, which is in no other time of variant hash.
    tokens_per_second: of all ranks together.
    forward_peak: allocated by a forward pass; peak: by both, the weights' gradients included; fullest rank.
    sent: mean over ranks; sent_bound: the least that these routes need.
    dropped: share of tokens; load: tokens of the table's fullest expert / mean.
    matmul_teraflops: arithmetic per second of one matmul [T, d] @ [d, D] on one rank, the ceiling.
    matmul_share: the variant's useful arithmetic per second / that ceiling.
    synchronises: where a GPU makes the host wait, "" nowhere, None not tried.
    """

    ep_size: int
    num_experts: int
    tokens_per_rank: int
    variant: str
    repetitions: int
    forward: Spread
    backward: Spread
    total: Spread
    ratio: Spread
    floor: float
    plan: Spread
    tokens_per_second: float
    forward_peak: float
    peak: float
    sent: float
    sent_bound: float
    dropped: float
    load: float
    matmul_teraflops: float
    matmul_share: float
    synchronises: str | None


def make_rows(ranks: list[list[dict]]) -> list[Row]:
    """ranks: what measure_cases returned on each rank, that is, the same cases in the same order."""
    return [row for cases in zip(*ranks, strict=True) for row in _case_rows(cases)]


def _case_rows(ranks: tuple[dict, ...]) -> list[Row]:
    first = ranks[0]
    dense = _slowest(ranks, "dense", "forward_seconds") + _slowest(ranks, "dense", "backward_seconds")
    plan = 1e3 * np.max([rank["plan_seconds"] for rank in ranks], axis=0)
    matmul, fill = (
        1e3 * np.median(np.max([rank[f"{name}_seconds"] for rank in ranks], axis=0)) for name in ("matmul", "fill")
    )
    tokens_per_expert = np.sum([rank["tokens_per_expert"] for rank in ranks], axis=0)
    num_local_experts = len(tokens_per_expert) / len(ranks)
    rows = []
    for variant in first["variants"]:
        forward, backward = (_slowest(ranks, variant, f"{name}_seconds") for name in ("forward", "backward"))
        total = forward + backward
        one_rank = [rank["variants"][variant] for rank in ranks]
        row = Row(
            ep_size=len(ranks),
            num_experts=first["num_experts"],
            tokens_per_rank=first["tokens_per_rank"],
            variant=variant,
            repetitions=len(total),
            forward=spread(forward),
            backward=spread(backward),
            total=spread(total),
            ratio=spread(total / dense[: len(total)]),
            floor=float(6 * matmul + (fill / num_local_experts if variant == "dense" else fill)),
            plan=spread(plan),
            tokens_per_second=len(ranks) * first["tokens_per_rank"] / np.median(total) * 1e3,
            forward_peak=max(m["forward_peak_bytes"] for m in one_rank) / 2**20,
            peak=max(m["peak_bytes"] for m in one_rank) / 2**20,
            sent=float(np.mean([m["sent_bytes"] for m in one_rank])) / 2**20,
            # No expert sends anything for the dense layer.
            sent_bound=0.0 if variant == "dense" else float(np.mean([rank["bound_bytes"] for rank in ranks])) / 2**20,
            dropped=float(np.mean([m["dropped_share"] for m in one_rank])),
            load=float(tokens_per_expert.max() / tokens_per_expert.mean()),
            matmul_teraflops=first["matmul_flops"] / (matmul * 1e9),
            # Forward and backward are 3 times the forward's two matmuls, of which the measured one is half.
            matmul_share=float(3 * 2 * matmul / np.median(total)),
            synchronises=one_rank[0]["synchronises"],
        )
        rows.append(row)
    return rows


def _slowest(ranks: tuple[dict, ...], variant: str, name: str) -> np.ndarray:
    """Milliseconds of the slowest rank in each repetition: the others wait for it at the next collective."""
    return 1e3 * np.max([rank["variants"][variant][name] for rank in ranks], axis=0)


def spread(values: np.ndarray) -> Spread:
    return Spread(*(float(np.percentile(values, percent)) for percent in (50, 10, 90)))
