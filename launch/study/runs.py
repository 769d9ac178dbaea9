"""The runs of a study: the folder of each, its progress, and whether its folder holds another run."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import yaml

from launch.study.recipes import Study
from launch.study.tables import with_tables
from train.checkpoint.folders import find_newest
from train.config.run_config import RunConfig
from train.config.run_paths import checkpoints_dir, completed_checkpoints, step_of
from train.metrics.metrics_file import Point, read_points
from train.metrics.records import TrainRecord, ValidationRecord

# Fields that no result depends on: where a run lies, how it is watched, and which checkpoints it keeps.
_NO_INFLUENCE = {"run_dir", "loggers", "hang_timeout_seconds", "loader_workers", "keep_last", "keep_every"}


@dataclass(frozen=True)
class StudyRun:
    """A variant with a seed. config: with the folder, the seed and the table paths of this run."""

    variant: str
    seed: int
    recipe: Path
    config: RunConfig

    @property
    def name(self) -> str:
        return f"{self.variant}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        return Path(self.config.run_dir)

    @property
    def frozen_recipe(self) -> Path:
        """The checked recipe that the run starts with; the original may be edited while other runs train."""
        return self.folder.with_suffix(".yaml")

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """The output of the run; beside its folder, which must be empty when a run starts."""
        return self.folder.with_suffix(".log")

    @property
    def model(self) -> Path:
        """The last checkpoint, a Hugging Face directory."""
        return self.folder / "checkpoints" / f"step_{self.config.max_steps:08d}"

    @property
    def is_finished(self) -> bool:
        """Whether the last checkpoint exists, and the last validation, which a stop may have skipped."""
        checkpoint, problems = find_newest(checkpoints_dir(self.folder))
        if problems or checkpoint is None or checkpoint.folder != self.model:
            return False
        return any(point.step == self.config.max_steps for point in self._points(ValidationRecord))

    @property
    def num_steps_reported(self) -> int:
        """Steps that the metrics report so far."""
        points = self._points(TrainRecord)
        return points[-1].step if points else 0

    @property
    def num_steps_saved(self) -> int:
        saved = completed_checkpoints(self.folder / "checkpoints")
        return step_of(saved[0]) if saved else 0

    def _points(self, record_type: type[Point]) -> list[Point]:
        return read_points(self.metrics, record_type) if self.metrics.is_file() else []


def runs_by_seed(study: Study, output: Path, *, num_seeds: int, variants: list[str]) -> list[list[StudyRun]]:
    """The runs of each seed in the order of training, for `variants` and those that they need, or for all."""
    for name in variants:
        if name not in study.variants:
            raise ValueError(f"--variants {name} is not one of {', '.join(study.variants)}")
    if num_seeds < 1:
        raise ValueError(f"--seeds {num_seeds} must be at least 1")
    wanted = set(variants or study.variants)
    for variant in reversed(study.variants):  # a variant stands behind those that it needs
        wanted |= set(study.needs(variant)) if variant in wanted else set()
    names = [variant for variant in study.variants if variant in wanted]
    return [[study_run(study, name, output, seed=seed) for name in names] for seed in range(num_seeds)]


def study_run(study: Study, variant: str, output: Path, *, seed: int) -> StudyRun:
    config = with_tables(study, variant, output, seed=seed)
    run_dir = str(output / variant / f"seed_{seed}")
    return StudyRun(variant, seed, study.recipe(variant), dataclasses.replace(config, run_dir=run_dir, seed=seed))


def check_same_run(run: StudyRun) -> None:
    """ValueError if the folder holds a run of another config, whose results would pass for those of this one."""
    path = run.folder / "run.yaml"
    if not path.is_file():
        return
    try:
        found = RunConfig(**yaml.safe_load(path.read_text()))
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is not the config of a run ({error}); restore it, or remove {run.folder}") from None
    for spec in dataclasses.fields(RunConfig):
        before, now = _result_of(found, spec.name), _result_of(run.config, spec.name)
        if before != now:
            raise ValueError(
                f"{run.folder} was trained with {spec.name}={before}, but {run.recipe} now has {now}; "
                "choose another --output, or remove that folder"
            )


def _result_of(config: RunConfig, name: str):
    """A field's value as far as results depend on it.

    A study may move: tables are compared by name here, and by digest when a run resumes.
    """
    if name in _NO_INFLUENCE:
        return None
    value = getattr(config, name)
    return [Path(table).name for table in value] if name == "route_table" else value
