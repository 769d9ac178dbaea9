"""The command of a study: check the recipes, train what has not finished, seed by seed, and report.

Killed or stopped at any moment, the same command goes on; finished runs are left alone.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from data_prep.processes.command_line import user_errors_in_one_line
from launch.study.progress import Progress
from launch.study.recipes import Study, read_study
from launch.study.report import write_report
from launch.study.results import read_results
from launch.study.runs import Stop, StudyRun, check_same_run, log_tail, study_run, train_run
from launch.study.shared import check_shared, record_shared, shared_facts
from launch.study.tables import build_tables
from train.checkpoint.run_folder import check_resume
from train.config.deepspeed_config import check_topology, deepspeed_config
from train.inputs import open_inputs
from train.metrics.metrics_file import read_points
from train.metrics.records import ValidationRecord
from train.processes.exit_codes import EXIT_DONE, EXIT_STOPPED

EXIT_FAILED_RUNS = 1
Train = Callable[..., int | None]  # launch.study.runs.train_run, or what stands for it


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 all finished, 1 some runs failed, 2 input that a user can correct, 75 stopped on request."""
    options = _parser().parse_args(argv)
    study = read_study(options.recipes, may_differ=options.may_differ)
    output = Path(options.output or Path("runs") / study.folder.resolve().name)
    if options.report_only:
        text = write_report(study, output)
        print(text or f"no run below {output} has finished")
        return EXIT_DONE
    rounds = plan(study, output, num_seeds=options.seeds, variants=options.variants)
    try:
        check(study, output, rounds, num_ranks=options.ranks)
    except KeyboardInterrupt:
        return _say_stopped()
    stop = Stop()
    stop.listen()
    return train_rounds(study, output, rounds, stop, train=partial(train_run, num_ranks=options.ranks, stop=stop))


def plan(study: Study, output: Path, *, num_seeds: int, variants: list[str]) -> list[list[StudyRun]]:
    """The runs of each seed, in the order of training; of `variants` and of those that they need, or of all."""
    for name in variants:
        if name not in study.variants:
            raise ValueError(f"--variants {name} is not one of {', '.join(study.variants)}")
    if num_seeds < 1:
        raise ValueError(f"--seeds {num_seeds} must be at least 1")
    wanted = set(variants or study.variants)
    for variant in reversed(study.variants):  # what a variant needs stands before it
        wanted |= set(study.needs(variant)) if variant in wanted else set()
    names = [variant for variant in study.variants if variant in wanted]
    return [[study_run(study, name, output, seed=seed) for name in names] for seed in range(num_seeds)]


def check(study: Study, output: Path, rounds: list[list[StudyRun]], *, num_ranks: int) -> None:
    """ValueError where a run could not start or be compared, before any has; builds the tables that can be built."""
    if num_ranks < 1:
        raise ValueError(f"--ranks {num_ranks} must be at least 1")
    for run in rounds[0]:
        check_topology(run.config, world_size=num_ranks)
        deepspeed_config(run.config, world_size=num_ranks)
    facts = shared_facts(study.config, num_ranks=num_ranks)
    check_shared(facts, output)
    read_results(study, output)  # of runs that this command will not touch, too
    for runs in rounds:
        for run in runs:
            check_same_run(run)
            models = _models(study, run, runs)
            if all(model.is_finished for model in models):
                _build_tables(study, output, run, models)
                check_resume(run.config, open_inputs(run.config).identity(run.config))
    record_shared(facts, output)


def train_rounds(study: Study, output: Path, rounds: list[list[StudyRun]], stop: Stop, *, train: Train) -> int:
    """Train what has not finished, seed by seed, with a report after every run; the exit status."""
    progress = Progress([run for runs in rounds for run in runs])
    failed: list[str] = []
    for runs in rounds:
        for run in runs:
            if stop.is_requested:
                continue
            models = _models(study, run, runs)
            failure = _tables_failure(study, output, run, models, progress)  # of finished runs too: models may be new
            if not failure and not run.is_finished:
                failure = _train_one(run, progress, train)
                write_report(study, output)
            if failure and not stop.is_requested:
                failed.append(failure)
    progress.close()
    return _finish(study, output, failed, stop)


def _models(study: Study, run: StudyRun, runs: list[StudyRun]) -> list[StudyRun]:
    """Those of the seed's runs whose embeddings the run's tables need."""
    return [other for other in runs if other.variant in study.needs(run.variant)]


def _tables_failure(
    study: Study, output: Path, run: StudyRun, models: list[StudyRun], progress: Progress
) -> str | None:
    """Build the run's tables where they are not there; a line where they cannot be built."""
    try:
        for path in _build_tables(study, output, run, models):
            progress.say(f"built {path}")
    except ValueError as error:
        progress.say(f"{run.name}: {error}")
        return f"{run.name}: {error}"
    return None


def _build_tables(study: Study, output: Path, run: StudyRun, models: list[StudyRun]) -> list[Path]:
    """ValueError where one of the models has not finished, and as build_tables."""
    for needed in models:
        if not needed.is_finished:
            raise ValueError(f"its table needs {needed.variant}, which has not finished")
    folders = {needed.variant: needed.model for needed in models}
    return build_tables(study, run.variant, output, seed=run.seed, models=folders)


def _train_one(run: StudyRun, progress: Progress, train: Train) -> str | None:
    """Train a run; a line where it did not finish."""
    progress.begin(run)
    start = time.monotonic()
    code = train(run, watch=partial(progress.watch, run), say=progress.say)
    if run.is_finished:
        progress.end(run, f"perplexity {_perplexity(run)}, {time.monotonic() - start:,.0f} s")
        return None
    if code in (None, EXIT_STOPPED):
        progress.end(run, "stopped")
    else:
        progress.say(f"the end of {run.log}:\n{log_tail(run)}")
        progress.end(run, f"failed with exit code {code}")
    return f"{run.name}: exit code {code}, see {run.log}"


def _perplexity(run: StudyRun) -> str:
    found = read_points(run.metrics, ValidationRecord)[-1].perplexity
    return "not finite" if found is None else f"{found:.3f}"


def _finish(study: Study, output: Path, failed: list[str], stop: Stop) -> int:
    """Print the report and what is missing."""
    text = write_report(study, output)
    if text:
        print(f"\n{text}\nWritten to {output}/study.md, study.json and study.png")
    for failure in failed:
        print(f"error: {failure}", file=sys.stderr)
    if stop.is_requested:
        return _say_stopped()
    return EXIT_FAILED_RUNS if failed else EXIT_DONE


def _say_stopped() -> int:
    print("stopped as was asked; the same command goes on", file=sys.stderr)
    return EXIT_STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launch.study",
        description="Train a folder of recipes with equal data, order and budget, and compare them (docs/study.md).",
    )
    add = parser.add_argument
    add("recipes", metavar="RECIPE_DIR", help="folder of study.yaml and a recipe per variant")
    add("--seeds", type=int, default=3, help="runs per variant, with the seeds 0, 1, ... (default: 3)")
    add("--output", metavar="DIR", help="folder of runs, tables and report (default: runs/ and RECIPE_DIR's name)")
    add(
        "--ranks",
        type=int,
        default=1,
        help="processes per run, started by deepspeed where it is not 1 (default: 1)",
    )
    add("--variants", nargs="+", default=[], metavar="NAME", help="train only these, and those that they need")
    add("--may_differ", nargs="+", default=[], metavar="FIELD", help="fields in which recipes may differ all the same")
    add("--report_only", action="store_true", help="train nothing, report what has finished")
    return parser
