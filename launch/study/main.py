"""The command of a study: check the recipes, train unfinished runs seed by seed, and report.

If the study is killed or stopped at any moment, the same command resumes it and skips finished runs.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from data_prep.processes.command_line import user_errors_in_one_line
from launch.study.process import Stop, log_tail, train_run
from launch.study.progress import Progress
from launch.study.recipes import Study, read_study
from launch.study.report import write_report
from launch.study.results import read_results
from launch.study.runs import StudyRun, check_same_run, runs_by_seed
from launch.study.shared import check_shared, record_shared, shared_facts
from launch.study.tables import build_tables
from train.checkpoint.folders import find_newest
from train.checkpoint.run_folder import check_resume
from train.config.deepspeed_config import check_topology, deepspeed_config
from train.config.run_paths import checkpoints_dir
from train.inputs import open_inputs
from train.metrics.metrics_file import read_points
from train.metrics.records import ValidationRecord
from train.processes.exit_codes import EXIT_DONE, EXIT_STOPPED

EXIT_FAILED_RUNS = 1
Train = Callable[..., int | None]  # launch.study.process.train_run, or a stand-in


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 all runs finished, 1 some failed, 2 input that a user can correct, 75 stopped on request."""
    options = _parser().parse_args(argv)
    study = read_study(options.recipes, may_differ=options.may_differ)
    output = Path(options.output or Path("runs") / study.folder.resolve().name)
    if options.report_only:
        text = write_report(study, output)
        print(text or f"no run in {output} has finished")
        return EXIT_DONE
    rounds = runs_by_seed(study, output, num_seeds=options.seeds, variants=options.variants)
    try:
        prepare(study, output, rounds, num_ranks=options.ranks)
    except KeyboardInterrupt:
        return _report_stop()
    stop = Stop()
    stop.listen()
    return train_rounds(study, output, rounds, stop, train=partial(train_run, num_ranks=options.ranks, stop=stop))


def prepare(study: Study, output: Path, rounds: list[list[StudyRun]], *, num_ranks: int) -> None:
    """Everything before the first run trains. ValueError if a run could not start, resume or be compared."""
    facts = shared_facts(study.config, num_ranks=num_ranks)
    check(study, output, rounds, facts, num_ranks=num_ranks)
    build_ready_tables(study, output, rounds)
    check_resumable(study, rounds)
    record_shared(facts, output)


def check(study: Study, output: Path, rounds: list[list[StudyRun]], facts: dict, *, num_ranks: int) -> None:
    """ValueError if the ranks, the shared facts or the runs in the folder do not fit the recipes."""
    if num_ranks < 1:
        raise ValueError(f"--ranks {num_ranks} must be at least 1")
    for run in rounds[0]:
        check_topology(run.config, world_size=num_ranks)
        deepspeed_config(run.config, world_size=num_ranks)
    check_shared(facts, output)
    read_results(study, output)  # also checks finished runs that this command does not train
    for runs in rounds:
        for run in runs:
            check_same_run(run)


def build_ready_tables(study: Study, output: Path, rounds: list[list[StudyRun]]) -> None:
    """Build the tables that need no unfinished run. ValueError if a table was built from something else."""
    for run, models in _ready_runs(study, rounds):
        _build_tables(study, output, run, models)


def check_resumable(study: Study, rounds: list[list[StudyRun]]) -> None:
    """ValueError if the checkpoint of a run does not fit its config, data and tables."""
    for run, _ in _ready_runs(study, rounds):
        checkpoint, _ = find_newest(checkpoints_dir(run.folder))
        check_resume(run.config, open_inputs(run.config).resume_compatibility(run.config), checkpoint)


def train_rounds(study: Study, output: Path, rounds: list[list[StudyRun]], stop: Stop, *, train: Train) -> int:
    """Train unfinished runs, seed by seed, with a report after every run; returns the exit status."""
    progress = Progress([run for runs in rounds for run in runs])
    failed: list[str] = []
    for runs in rounds:
        for run in runs:
            if stop.is_requested:
                continue
            # The tables of finished runs are checked too: the models that they were built from may be new.
            failure = _tables_failure(study, output, run, _models(study, run, runs), progress)
            if not failure and not run.is_finished:
                failure = _train_one(run, progress, train)
                write_report(study, output)
            if failure and not stop.is_requested:
                failed.append(failure)
    progress.close()
    return _finish(study, output, failed, stop)


def _ready_runs(study: Study, rounds: list[list[StudyRun]]) -> Iterator[tuple[StudyRun, list[StudyRun]]]:
    """The runs whose tables can be built now, each with the finished runs that its tables need."""
    for runs in rounds:
        for run in runs:
            models = _models(study, run, runs)
            if all(model.is_finished for model in models):
                yield run, models


def _models(study: Study, run: StudyRun, runs: list[StudyRun]) -> list[StudyRun]:
    """The runs of the same seed whose embeddings the run's tables need."""
    return [other for other in runs if other.variant in study.needs(run.variant)]


def _tables_failure(
    study: Study, output: Path, run: StudyRun, models: list[StudyRun], progress: Progress
) -> str | None:
    """Build the missing tables of a run; returns a line if they cannot be built."""
    try:
        for path in _build_tables(study, output, run, models):
            progress.print_line(f"built {path}")
    except (ValueError, OSError) as error:
        progress.print_line(f"{run.name}: {error}")
        return f"{run.name}: {error}"
    return None


def _build_tables(study: Study, output: Path, run: StudyRun, models: list[StudyRun]) -> list[Path]:
    """ValueError if one of the models has not finished, and as build_tables."""
    for needed in models:
        if not needed.is_finished:
            raise ValueError(f"its table needs {needed.variant}, which has not finished")
    folders = {needed.variant: needed.model for needed in models}
    return build_tables(study, run.variant, output, seed=run.seed, models=folders)


def _train_one(run: StudyRun, progress: Progress, train: Train) -> str | None:
    """Train a run; returns a line if it did not finish."""
    progress.begin(run)
    start = time.monotonic()
    code = train(run, watch=partial(progress.watch, run), print_line=progress.print_line)
    if run.is_finished:
        progress.end(run, f"perplexity {_perplexity(run)}, {time.monotonic() - start:,.0f} s")
        return None
    if code in (None, EXIT_STOPPED):
        progress.end(run, "stopped")
    else:
        progress.print_line(f"the end of {run.log}:\n{log_tail(run)}")
        progress.end(run, f"failed with exit code {code}")
    return f"{run.name}: exit code {code}, see {run.log}"


def _perplexity(run: StudyRun) -> str:
    perplexity = read_points(run.metrics, ValidationRecord)[-1].perplexity
    return "not finite" if perplexity is None else f"{perplexity:.3f}"


def _finish(study: Study, output: Path, failed: list[str], stop: Stop) -> int:
    """Print the report and the failures; returns the exit status."""
    text = write_report(study, output)
    if text:
        print(f"\n{text}\nWritten to {output}/study.md, study.json and study.png")
    for failure in failed:
        print(f"error: {failure}", file=sys.stderr)
    if stop.is_requested:
        return _report_stop()
    return EXIT_FAILED_RUNS if failed else EXIT_DONE


def _report_stop() -> int:
    print("stopped on request; the same command resumes the study", file=sys.stderr)
    return EXIT_STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launch.study",
        description="Train a folder of recipes on equal data, order and budget, and compare them (docs/study.md).",
    )
    add = parser.add_argument
    add("recipes", metavar="RECIPE_DIR", help="folder with study.yaml and a recipe per variant")
    add("--seeds", type=int, default=3, help="runs per variant, with seeds 0, 1, ... (default: 3)")
    add("--output", metavar="DIR", help="folder for runs, tables and report (default: runs/NAME_OF_RECIPE_DIR)")
    add(
        "--ranks",
        type=int,
        default=1,
        help="processes per run; deepspeed launches them if there are several (default: 1)",
    )
    add("--variants", nargs="+", default=[], metavar="NAME", help="train only these variants and those that they need")
    add("--may_differ", nargs="+", default=[], metavar="FIELD", help="additional fields in which recipes may differ")
    add("--report_only", action="store_true", help="train nothing; report the finished runs")
    return parser
