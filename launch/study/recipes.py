"""A study's recipes: the variants that it compares, the tables that they name, and the check that all else is equal."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import yaml

from data_prep.tables.methods import NEED_EMBEDDINGS
from train.config.field_names import nearest_field
from train.config.recipe_file import read_recipe
from train.config.run_config import RunConfig

STUDY_FILE = "study.yaml"
_KEYS = {"variants", "baseline", "tables", "expect"}

# Variants differ in the network, its router and its tables. All other fields must be equal.
NETWORK_FIELDS = {
    "route_table", "share_route_table", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "activation", "position_embedding", "sparse_layers", "num_experts", "placement", "num_sublayers", "ep_size",
    "router", "router_aux_loss_coef", "router_z_loss_coef", "router_jitter_noise", "capacity_factor",
    "expert_choice_cap",
}  # fmt: skip
# Perplexities of runs that differ here are not comparable.
_MUST_BE_EQUAL = {"train_data", "eval_data", "eval_fraction", "vocab_size", "context_length", "eval_sequences"}
# Fields that the study itself sets for each run.
OWN_FIELDS = {"seed", "run_dir"}
# Arguments of data_prep.build_table that a table may set; the others follow from the recipes and the seed.
_TABLE_ARGUMENTS = {
    "hash_key", "method", "num_experts", "num_tables", "num_hashes", "ep_size", "rotation_period",
    "split_frequent_tokens", "split_threshold", "num_buckets", "embeddings",
}  # fmt: skip


@dataclass(frozen=True)
class Study:
    """The study that a folder of recipes describes."""

    folder: Path
    variants: dict[str, RunConfig]  # by the name of the recipe, in the order of training
    baseline: str  # the variant that the others are compared with
    tables: dict[str, dict]  # arguments of data_prep.build_table, by the name that recipes use as route_table
    expect: list[tuple[str, str]]  # (better, worse): the paper's orderings

    @property
    def config(self) -> RunConfig:
        """The baseline's config, for the fields that are equal in every variant."""
        return self.variants[self.baseline]

    def recipe(self, variant: str) -> Path:
        return self.folder / f"{variant}.yaml"

    def tables_of(self, variant: str) -> list[str]:
        """The names in a variant's route_table that the study builds; its other names are files."""
        config = self.variants[variant]
        return [name for name in config.route_table if name in self.tables] if config.sparse_layers else []

    def needs(self, variant: str) -> list[str]:
        """The variants from whose embeddings a variant's tables are built."""
        models = [self.tables[name].get("embeddings") for name in self.tables_of(variant)]
        return [model for model in models if model]


def read_study(folder: str | Path, *, may_differ: list[str]) -> Study:
    """ValueError, naming file and value, for recipes that cannot be read or compared.

    may_differ: fields beyond those of the network in which the variants may differ.
    """
    folder = Path(folder)
    content = _read_study_file(folder / STUDY_FILE)
    variants = {str(name): read_recipe(folder / f"{name}.yaml") for name in content["variants"]}
    study = Study(
        folder=folder,
        variants=variants,
        baseline=str(content["baseline"]),
        tables={str(name): dict(arguments or {}) for name, arguments in (content.get("tables") or {}).items()},
        expect=[tuple(map(str, pair)) for pair in content.get("expect") or []],
    )
    _check_names(study)
    _check_tables(study)
    check_equal(study, may_differ=may_differ)
    _check_runs(study)
    return dataclasses.replace(study, variants={name: variants[name] for name in training_order(study)})


def check_equal(study: Study, *, may_differ: list[str]) -> None:
    """ValueError, naming field, recipes and both values, if variants differ in a field that must be equal."""
    known = {spec.name for spec in dataclasses.fields(RunConfig)}
    for name in may_differ:
        if name not in known:
            raise ValueError(f"--may_differ {name} is not a field of a run; the nearest is {nearest_field(name)!r}")
        if name in _MUST_BE_EQUAL:
            raise ValueError(f"--may_differ {name}: perplexities of runs that differ in it are not comparable")
    for field in differing_fields(study):
        if field in may_differ:
            continue
        first, value, other, others_value = _first_difference(study, field)
        allow = "" if field in _MUST_BE_EQUAL else f", or allow it with --may_differ {field}"
        raise ValueError(
            f"{study.recipe(first)} has {field}={value} but {study.recipe(other)} has {field}={others_value}; runs "
            f"that differ in it are not compared: make them equal{allow}"
        )


def _check_runs(study: Study) -> None:
    """ValueError if a variant could not be validated, resumed or started."""
    for name, config in study.variants.items():
        if config.eval_data is None and config.eval_fraction == 0:
            raise ValueError(f"{study.recipe(name)} has no validation data; set eval_data or eval_fraction")
        for every in ("log_every", "eval_every"):
            if getattr(config, every) and config.save_every % getattr(config, every):
                raise ValueError(
                    f"{study.recipe(name)} has save_every={config.save_every}, which is not a multiple of {every}="
                    f"{getattr(config, every)}, so a killed run would have other metrics; change one of them"
                )
        for field, value in (("resume", "auto"), ("dry_run", False)):
            if getattr(config, field) != value:
                raise ValueError(f"{study.recipe(name)} has {field}={getattr(config, field)}; a study needs {value}")


def differing_fields(study: Study) -> list[str]:
    """The fields outside the network in which variants differ."""
    names = [spec.name for spec in dataclasses.fields(RunConfig) if spec.name not in NETWORK_FIELDS | OWN_FIELDS]
    return [name for name in names if _first_difference(study, name)]


def training_order(study: Study) -> list[str]:
    """The variants as listed, but each after those whose embeddings it needs. ValueError if that is a circle."""
    order: list[str] = []

    def visit(variant: str, path: tuple[str, ...]) -> None:
        if variant in path:
            raise ValueError(f"{study.folder / STUDY_FILE}: {variant} needs its own embeddings: {' -> '.join(path)}")
        for needed in study.needs(variant):
            visit(needed, (*path, variant))
        if variant not in order:
            order.append(variant)

    for variant in study.variants:
        visit(variant, ())
    return order


def _first_difference(study: Study, field: str) -> tuple | None:
    """(variant, its value, other variant, the other's value), or None if all agree."""
    (first, config), *others = study.variants.items()
    value = getattr(config, field)
    return next(((first, value, name, getattr(c, field)) for name, c in others if getattr(c, field) != value), None)


def _read_study_file(path: Path) -> dict:
    if not path.is_file():
        raise ValueError(f"{path} does not exist; docs/study.md describes this file")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict) or not {"variants", "baseline"} <= content.keys() <= _KEYS:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else repr(content)
        raise ValueError(f"{path} must hold variants and baseline, and may hold tables and expect; it holds {found}")
    tables, expect = content.get("tables") or {}, content.get("expect") or []
    if not isinstance(content["variants"], list) or not isinstance(tables, dict) or not isinstance(expect, list):
        raise ValueError(
            f"{path}: variants must be a list of recipes, tables a mapping from names to arguments, expect a list of "
            "pairs [better, worse]"
        )
    for name, arguments in tables.items():
        if not isinstance(arguments or {}, dict):
            raise ValueError(f"{path}: table {name!r} is {arguments!r}, not a mapping of build_table's arguments")
    for pair in expect:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"{path}: expect holds {pair!r}, which is not a pair [better, worse]")
    return content


def _check_names(study: Study) -> None:
    path = study.folder / STUDY_FILE
    for what, names in {
        "baseline": [study.baseline],
        "expect": [name for pair in study.expect for name in pair],
    }.items():
        for name in names:
            if name not in study.variants:
                raise ValueError(
                    f"{path}: {what} names {name!r}, which is not one of variants: {_list(study.variants)}"
                )


def _check_tables(study: Study) -> None:
    path = study.folder / STUDY_FILE
    used = {name for variant in study.variants for name in study.tables_of(variant)}
    for name, arguments in study.tables.items():
        if name not in used:
            raise ValueError(f"{path}: no variant has the table {name!r} as its route_table; remove it")
        for argument in arguments:
            if argument not in _TABLE_ARGUMENTS:
                raise ValueError(f"{path}: table {name!r} has {argument!r}, not one of {_list(_TABLE_ARGUMENTS)}")
        model, method = arguments.get("embeddings"), arguments.get("method", "balanced")
        if (model is not None) != (method in NEED_EMBEDDINGS):
            raise ValueError(f"{path}: table {name!r} has method={method} and embeddings={model}; only "
                             f"{' and '.join(NEED_EMBEDDINGS)} need the embeddings of a variant")  # fmt: skip
        if model is not None and str(model) not in study.variants:
            raise ValueError(f"{path}: table {name!r} has embeddings={model}, not one of {_list(study.variants)}")


def _list(names) -> str:
    return ", ".join(sorted(names))
