"""What came out of the finished runs of a study, read from their folders."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from launch.study.recipes import Study
from launch.study.runs import StudyRun, check_same_run, study_run
from models.configuration_hash_gpt import HashGPTConfig
from models.parameter_count import count_parameters
from train.checkpoint.commit import read_manifest
from train.metrics.metrics_file import read_points
from train.metrics.records import TrainRecord, ValidationRecord

# Means over the second half of the steps, of the lines that have them; routers that learn report more than tables do.
_LATE_MEANS = ("load_max_over_mean", "dropped_share", "routing_entropy", "routing_fluctuation")


@dataclass(frozen=True)
class RunResult:
    """One finished run."""

    variant: str
    seed: int
    steps: int
    tokens: int  # trained on
    parameters_total: int
    parameters_active: int  # used by one token
    looks_ahead: bool  # HashGPTConfig.looks_ahead
    perplexity: float  # validation, at the last step
    valid_tokens: int
    tokens_per_second: float  # median of the training lines
    seconds: float  # of training; validation, saving and starting are not in it
    load_max_over_mean: float | None  # as observed; None without experts
    dropped_share: float | None  # None where the router does not report it, so too the next two
    routing_entropy: float | None
    routing_fluctuation: float | None
    corpus_digest: str
    num_ranks: int
    curve: list[tuple[int, float]]  # (step, validation perplexity)


def read_results(study: Study, output: Path) -> tuple[list[RunResult], list[str]]:
    """Those of all finished runs, by variant as the study lists them, then by seed, and the names of those that
    diverged: their perplexity is not finite.

    ValueError where a run was trained otherwise than its recipe says, on another corpus, or measured on other tokens.
    """
    finished = []
    for variant in study.variants:
        runs = [study_run(study, variant, output, seed=seed) for seed in _seeds(output, variant)]
        finished += [run for run in runs if run.is_finished]
    for run in finished:
        check_same_run(run)
    by_run = {run.name: read_result(run) for run in finished}
    results = [result for result in by_run.values() if result is not None]
    for name in ("corpus_digest", "valid_tokens", "num_ranks"):
        _check_same(results, name)
    return results, [name for name, result in by_run.items() if result is None]


def read_result(run: StudyRun) -> RunResult | None:
    """None where the perplexity is not finite."""
    train, valid = (read_points(run.metrics, kind=kind) for kind in ("train", "valid"))
    if valid[-1]["perplexity"] is None:
        return None
    manifest = read_manifest(run.model)
    network = HashGPTConfig(**json.loads((run.model / "config.json").read_text()))
    count = count_parameters(network)
    late = [point for point in train + valid if point["step"] > run.config.max_steps / 2]
    tokens_per_step = run.config.global_batch_size * run.config.context_length
    return RunResult(
        variant=run.variant,
        seed=run.seed,
        steps=run.config.max_steps,
        tokens=run.config.max_steps * tokens_per_step,
        parameters_total=count.total,
        parameters_active=count.active,
        looks_ahead=network.looks_ahead,
        perplexity=valid[-1]["perplexity"],
        valid_tokens=valid[-1]["tokens"],
        tokens_per_second=median(point["tokens_per_second"] for point in train),
        seconds=_seconds(train, tokens_per_step=tokens_per_step),
        **{name: _mean(late, name) for name in _LATE_MEANS},
        corpus_digest=manifest["identity"]["corpus_digest"],
        num_ranks=manifest["world_size"],
        curve=[(point["step"], point["perplexity"]) for point in valid if point["perplexity"] is not None],
    )


def _seeds(output: Path, variant: str) -> list[int]:
    numbers = (folder.name.removeprefix("seed_") for folder in (output / variant).glob("seed_*") if folder.is_dir())
    return sorted(int(number) for number in numbers if number.isdigit())


def _seconds(train: list[dict], *, tokens_per_step: int) -> float:
    """Summed over the lines, each of which covers the steps since the one before."""
    before = [0, *(point["step"] for point in train)]
    return sum(
        (point["step"] - start) * tokens_per_step / point["tokens_per_second"]
        for start, point in zip(before, train, strict=False)
    )


def _mean(points: list[dict], name: str) -> float | None:
    values = [point[name] for point in points if point.get(name) is not None]
    return fmean(values) if values else None


def _check_same(results: list[RunResult], name: str) -> None:
    for result in results:
        first, value, found = results[0], getattr(results[0], name), getattr(result, name)
        if found != value:
            raise ValueError(
                f"{first.variant}, seed {first.seed} has {name}={value} but {result.variant}, seed {result.seed} has "
                f"{found}: they are not comparable; remove those that should not be here, or give another --output"
            )
