"""Measure every variant of every case on one rank: time, memory, traffic and dropped tokens."""

from dataclasses import asdict, dataclass

import torch
from deepspeed.accelerator import get_accelerator

from launch.benchmark.costs import count_traffic, first_synchronization, peak_bytes
from launch.benchmark.layers.case import Case, make_case
from launch.benchmark.layers.check import check_variants
from launch.benchmark.layers.deepspeed_layer import DeepSpeedCapacity, DeepSpeedDropless
from launch.benchmark.layers.options import SINGLE_PROCESS, Options
from launch.benchmark.layers.ours import Dense, Hash, LearnedLoop, LearnedTop1, PerExpertLoop, Variant
from launch.benchmark.layers.transformers_layer import TransformersEager, TransformersGroupedMM
from launch.benchmark.timing import run_passes, time_variants

VARIANTS = {
    "dense": Dense,
    "hash": Hash,
    "deepspeed_dropless": DeepSpeedDropless,
    "deepspeed_capacity": DeepSpeedCapacity,
    "learned_top1": LearnedTop1,
    "per_expert_loop": PerExpertLoop,
    "transformers_eager": TransformersEager,
    "transformers_grouped_mm": TransformersGroupedMM,
    "learned_loop": LearnedLoop,  # the reference of learned_top1, not timed
}


@dataclass(frozen=True)
class Cost:
    """The cost of a variant for one rank in every pass."""

    forward_peak_bytes: int  # allocated by a forward pass that keeps what the backward pass needs
    peak_bytes: int  # allocated by both passes, gradients of weights included
    sent_bytes: int  # to other ranks, by both passes
    dropped_share: float  # of this rank's tokens
    synchronizes: str | None  # where a GPU first makes the host wait; "" nowhere, None on a CPU


def measure_cases(options: dict, *, ep_size: int, rank: int) -> list[dict]:
    """The measurements of every case of the options, as JSON values. Collective over all ep_size ranks."""
    options = Options(**options)
    torch.set_num_threads(options.threads)
    device = torch.device(get_accelerator().current_device_name())
    measured = []
    for num_experts, tokens_per_rank in options.cases:
        if rank == 0:
            print(f"  ep_size {ep_size}, {num_experts} experts, {tokens_per_rank:,} tokens per rank ...", flush=True)
        case = make_case(
            options, num_experts=num_experts, tokens_per_rank=tokens_per_rank, ep_size=ep_size, rank=rank, device=device
        )
        measured.append(_measure_case(case, options))
        del case  # the experts of the next case need its memory
    return measured


def _measure_case(case: Case, options: Options) -> dict:
    variants = _checked_variants(case, options)
    costs = {name: asdict(_cost(variant, case)) for name, variant in variants.items()}
    times = time_variants(
        variants, case, repetitions=options.repetitions, warmup=options.warmup, max_seconds=options.max_seconds
    )
    for name, seconds in times.passes.items():
        forward, backward = zip(*seconds, strict=True)
        costs[name] |= {"forward_seconds": forward, "backward_seconds": backward}
    return {
        "num_experts": case.config.num_experts,
        "tokens_per_rank": case.num_tokens,
        "bound_bytes": case.num_bound_bytes,
        "tokens_per_expert": torch.bincount(case.expert_T, minlength=case.config.num_experts).tolist(),
        "planning_seconds": times.planning,
        "matmul_seconds": times.matmul,
        "fill_seconds": times.fill,
        "matmul_flops": 2 * case.num_tokens * case.config.hidden_size * case.config.intermediate_size,
        "variants": costs,
    }


def _checked_variants(case: Case, options: Options) -> dict[str, Variant]:
    """The variants to time, after their results were compared."""
    timed = [name for name in options.variants if case.ep_size == 1 or name not in SINGLE_PROCESS]
    # The hash layer is never timed unchecked: the plain loop, or with several ranks DeepSpeed, must equal it.
    needed = {*timed, "per_expert_loop" if case.ep_size == 1 else "deepspeed_dropless"}
    needed |= {VARIANTS[name].equals for name in timed}
    variants = {name: variant(case) for name, variant in VARIANTS.items() if name in needed}
    check_variants(variants, case)
    return {name: variants[name] for name in timed}


def _cost(variant: Variant, case: Case) -> Cost:
    device = case.hidden_BSD.device
    forward_peak = peak_bytes(lambda: variant(case.hidden_BSD.detach().requires_grad_()), device)
    with count_traffic() as traffic:
        peak = peak_bytes(lambda: run_passes(variant, case), device)
    variant.zero_grad(set_to_none=True)
    synchronizes = first_synchronization(lambda: run_passes(variant, case), device)
    variant.zero_grad(set_to_none=True)
    return Cost(forward_peak, peak, traffic.num_bytes, variant.dropped_share(), synchronizes)
