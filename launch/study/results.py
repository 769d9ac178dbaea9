"""The results of a study's finished runs, read from their folders."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from launch.study.recipes import Study
from launch.study.runs import StudyRun, check_same_run, study_run
from models.configuration_hash_gpt import HashGPTConfig
from models.parameter_count import count_parameters
from train.checkpoint.files.manifest import read_manifest
from train.metrics.metrics_file import read_points
from train.metrics.records import TrainRecord, ValidationRecord


@dataclass(frozen=True)
class RunResult:
    """One finished run. Imbalance and routing are means over the second half of the steps, None if not measured."""

    variant: str
    seed: int
    steps: int
    tokens: int  # trained on
    parameters_total: int
    parameters_active: int  # used by one token
    has_causal_routes: bool  # HashGPTConfig.has_causal_routes
    perplexity: float  # validation, at the last step
    num_validation_tokens: int
    tokens_per_second: float  # median of the training records
    seconds: float  # of training; starting, validation and saving do not count
    imbalance: float | None  # observed, over experts
    dropped_share: float | None
    routing_entropy: float | None
    routing_fluctuation: float | None
    corpus_digest: str
    num_ranks: int
    curve: list[tuple[int, float]]  # (step, validation perplexity)


def read_results(study: Study, output: Path) -> tuple[list[RunResult], list[str]]:
    """All finished runs, by variant as the study lists them and by seed; and the names of those that diverged.

    A run diverged if its perplexity is not finite. ValueError if a run was trained with another recipe or corpus than
    the study has, or validated on other tokens.
    """
    finished = []
    for variant in study.variants:
        runs = [study_run(study, variant, output, seed=seed) for seed in _seeds(output, variant)]
        finished += [run for run in runs if run.is_finished]
    for run in finished:
        check_same_run(run)
    by_run = {run.name: read_result(run) for run in finished}
    results = [result for result in by_run.values() if result is not None]
    for name in ("corpus_digest", "num_validation_tokens", "num_ranks"):
        _check_same(results, name)
    return results, [name for name, result in by_run.items() if result is None]


def read_result(run: StudyRun) -> RunResult | None:
    """None if the perplexity is not finite."""
    train, validation = (read_points(run.metrics, record_type) for record_type in (TrainRecord, ValidationRecord))
    if validation[-1].perplexity is None:
        return None
    manifest = read_manifest(run.model)
    network = HashGPTConfig(**json.loads((run.model / "config.json").read_text()))
    count = count_parameters(network)
    late_train, late_validation = (_second_half(points, run.config.max_steps) for points in (train, validation))
    tokens_per_step = run.config.global_batch_size * run.config.context_length
    return RunResult(
        variant=run.variant,
        seed=run.seed,
        steps=run.config.max_steps,
        tokens=run.config.max_steps * tokens_per_step,
        parameters_total=count.total,
        parameters_active=count.active,
        has_causal_routes=network.has_causal_routes,
        perplexity=validation[-1].perplexity,
        num_validation_tokens=validation[-1].num_tokens,
        tokens_per_second=median(point.tokens_per_second for point in train),
        seconds=_seconds(train, tokens_per_step=tokens_per_step),
        imbalance=_mean(late_train, "imbalance"),
        dropped_share=_mean(late_train, "dropped_share"),
        routing_entropy=_mean(late_train, "routing_entropy"),
        routing_fluctuation=_mean(late_validation, "routing_fluctuation"),
        corpus_digest=manifest["resume_compatibility"]["corpus_digest"],
        num_ranks=manifest["world_size"],
        curve=[(point.step, point.perplexity) for point in validation if point.perplexity is not None],
    )


def _seeds(output: Path, variant: str) -> list[int]:
    numbers = (folder.name.removeprefix("seed_") for folder in (output / variant).glob("seed_*") if folder.is_dir())
    return sorted(int(number) for number in numbers if number.isdigit())


def _second_half(points: list, max_steps: int) -> list:
    return [point for point in points if point.step > max_steps / 2]


def _seconds(train: list[TrainRecord], *, tokens_per_step: int) -> float:
    """Summed over the records, each of which covers the steps since the record before."""
    before = [0, *(point.step for point in train)]
    return sum(
        (point.step - start) * tokens_per_step / point.tokens_per_second
        for start, point in zip(before, train, strict=False)
    )


def _mean(points: list, name: str) -> float | None:
    values = [value for point in points if (value := getattr(point, name)) is not None]
    return fmean(values) if values else None


def _check_same(results: list[RunResult], name: str) -> None:
    for result in results:
        first, value, found = results[0], getattr(results[0], name), getattr(result, name)
        if found != value:
            raise ValueError(
                f"{first.variant}, seed {first.seed} has {name}={value} but {result.variant}, seed {result.seed} has "
                f"{found}: they are not comparable; remove the wrong runs, or choose another --output"
            )
