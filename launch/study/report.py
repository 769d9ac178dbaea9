"""The report on a study's finished runs: study.json, study.md with one table, and study.png."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, median

from data_prep.storage.atomic_file import atomic_file
from launch.study.plots import MARK, MARK_MEANING, marked, plot_study
from launch.study.recipes import Study, differing_fields
from launch.study.results import RunResult, read_results
from launch.study.spreads import Ordering, Spread, orderings, paired_difference, spread

_COLUMNS = (
    "variant", "parameters, total (active)", "validation perplexity", "seeds", "lower than {baseline}", "tokens/s",
    "imbalance", "dropped", "rerouted",
)  # fmt: skip
_TABLE_NOTE = (
    "Perplexity and differences: mean ± standard deviation over seeds. Differences are between runs of the same seed; "
    "positive is better. Tokens/s depend on what else the machine ran. Imbalance (fullest expert / mean), the share of "
    "dropped tokens, and the share of a fixed batch's tokens that were routed to other experts than at the previous "
    "validation are means over the second half of the steps."
)


def write_report(study: Study, output: Path) -> str | None:
    """Write the three files and return the text of study.md; None, and no files, if no run has finished."""
    results, diverged = read_results(study, output)
    if not results:
        return None
    text = describe(study, results, diverged)
    with atomic_file(output / "study.md") as file:
        file.write(text.encode())
    with atomic_file(output / "study.json") as file:
        file.write(json.dumps(as_json(study, results, diverged), indent=1).encode())
    plot_study(results, output / "study.png", baseline=study.baseline)
    return text


def describe(study: Study, results: list[RunResult], diverged: list[str]) -> str:
    """The text of study.md: the basis of the report, the table, and the orderings."""
    sections = [f"# Study of {study.folder}", basis(study, results, diverged), table(study, results)]
    found = orderings(study.expect, perplexities(results))
    if found:
        sections.append(describe_orderings(found))
    sections.append("![perplexity by variant, and by step](study.png)")
    return "\n\n".join(sections) + "\n"


def as_json(study: Study, results: list[RunResult], diverged: list[str]) -> dict:
    """Every number behind the report."""
    found = orderings(study.expect, perplexities(results))
    return {
        "recipes": str(study.folder),
        "baseline": study.baseline,
        "may_differ": {name: _values(study, name) for name in differing_fields(study)},
        "diverged": diverged,
        "runs": [dataclasses.asdict(result) for result in results],
        "orderings": [dataclasses.asdict(ordering) | {"verdict": ordering.verdict} for ordering in found],
    }


def perplexities(results: list[RunResult]) -> dict[str, dict[int, float]]:
    """Perplexities by variant and seed."""
    by_variant: dict[str, dict[int, float]] = {}
    for result in results:
        by_variant.setdefault(result.variant, {})[result.seed] = result.perplexity
    return by_variant


def basis(study: Study, results: list[RunResult], diverged: list[str]) -> str:
    """The amount of training and measurement, the equal settings, and the missing runs."""
    first, seeds = results[0], sorted({result.seed for result in results})
    found = perplexities(results)
    missing = [
        f"{variant} (seed {', '.join(map(str, lacking))})"
        for variant in study.variants
        if (lacking := [s for s in seeds if s not in found.get(variant, {}) and f"{variant}, seed {s}" not in diverged])
    ]
    differing = differing_fields(study)
    text = (
        f"{len(results)} finished runs: {len(found)} of {len(study.variants)} variants, {len(seeds)} "
        f"seed{'s' if len(seeds) > 1 else ''}. Each run: {_range([result.steps for result in results])} steps, "
        f"{_range([result.tokens for result in results])} tokens, {first.num_ranks} "
        f"rank{'s' if first.num_ranks > 1 else ''}; validation on {first.num_validation_tokens:,} tokens. "
        f"Data, its order for a seed, budget and optimizer are equal{', except as named below' if differing else ''}."
    )
    if missing:
        text += f"\n\n**Not finished:** {'; '.join(missing)}."
    if diverged:
        text += f"\n\n**Diverged**, and excluded from every mean: {'; '.join(diverged)}."
    if len(seeds) == 1:
        text += "\n\n**One seed: the spread is unknown, and small differences may be chance.**"
    for name in differing:
        text += f"\n\n**Allowed to differ:** {name} ({'; '.join(_values(study, name))})."
    return text


def table(study: Study, results: list[RunResult]) -> str:
    """One row per variant, lowest perplexity first."""
    found = perplexities(results)
    baseline = found.get(study.baseline, {})
    rows = []
    for variant in sorted(found, key=lambda variant: fmean(found[variant].values())):
        runs = [result for result in results if result.variant == variant]
        difference = None if variant == study.baseline else paired_difference(baseline, found[variant])
        rows.append(_row(runs, spread(list(found[variant].values())), difference))
    text = _markdown([column.format(baseline=study.baseline) for column in _COLUMNS], rows)
    text += f"\n\n{_TABLE_NOTE}"
    if not all(result.has_causal_routes for result in results):
        text += f"\n\n{MARK} {MARK_MEANING}."
    return text


def _row(runs: list[RunResult], perplexity: Spread, difference: Spread | None) -> tuple[str, ...]:
    """The cells of one variant, in the order of _COLUMNS."""
    return (
        marked(runs[0]),
        f"{runs[0].parameters_total:,} ({runs[0].parameters_active:,})",
        _plus_minus(perplexity),
        str(len(runs)),
        _plus_minus(difference),
        f"{median(run.tokens_per_second for run in runs):,.0f}",
        _number(_mean(runs, "imbalance"), ".2f"),
        _number(_mean(runs, "dropped_share"), ".2%"),
        _number(_mean(runs, "routing_fluctuation"), ".1%"),
    )


def describe_orderings(found: list[Ordering]) -> str:
    """One row per expected ordering."""
    head = ("expected", "perplexity lower by", "95% interval", "seeds", "verdict")
    rows = [
        (
            f"{ordering.better} < {ordering.worse}",
            _plus_minus(ordering.difference),
            _interval(ordering.difference),
            str(ordering.difference.num if ordering.difference else 0),
            ordering.verdict,
        )
        for ordering in found
    ]
    return "## Expected orderings\n\n" + _markdown(head, rows)


def _markdown(head: Iterable[str], rows: list[tuple[str, ...]]) -> str:
    lines = [tuple(head), ("---",) * len(tuple(head)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _values(study: Study, field: str) -> list[str]:
    return [f"{variant}: {getattr(config, field)}" for variant, config in study.variants.items()]


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _interval(value: Spread | None) -> str:
    if value is None or value.half_width is None:
        return "-"
    return f"{value.mean - value.half_width:+.3f} to {value.mean + value.half_width:+.3f}"


def _plus_minus(value: Spread | None) -> str:
    if value is None:
        return "-"
    return f"{value.mean:.3f}" + ("" if value.deviation is None else f" ± {value.deviation:.3f}")


def _mean(runs: list[RunResult], name: str) -> float | None:
    values = [getattr(run, name) for run in runs if getattr(run, name) is not None]
    return fmean(values) if values else None


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
