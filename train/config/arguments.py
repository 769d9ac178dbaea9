"""The arguments of a run: a recipe (YAML) and the command line, joined into a RunConfig."""

import argparse
import dataclasses
import difflib
import typing
from pathlib import Path

import yaml

from train.config.run_config import RunConfig


def load_run_config(argv: list[str]) -> RunConfig:
    """`--config recipe.yaml --any_field value ...` -> RunConfig; the command line wins over the recipe.

    Raises ValueError for a recipe that is missing or not a mapping, an unknown field (with the nearest name) or
    a value of the wrong type.
    """
    parser = _argument_parser()
    known, unknown = parser.parse_known_args(argv)
    for argument in unknown:
        if argument.startswith("--"):
            raise ValueError(_unknown_field(argument[2:].split("=")[0], "the command line"))
        raise ValueError(f"the command line holds {argument!r}, which belongs to no --field")
    given = {name: value for name, value in vars(known).items() if name not in ("config", "local_rank")}
    recipe = _read_recipe(known.config) if known.config else {}
    values = {**recipe, **given}
    if "train_data" not in values:
        raise ValueError("train_data is not set: name a recipe with --config, or a folder with --train_data")
    return RunConfig(**values)


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch/train.py",
        description="Train a hash-layer language model.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,  # `--step` is a misspelling to name, not `--max_steps`
    )
    parser.add_argument("--config", default=None, help="recipe: a YAML file of the fields below")
    parser.add_argument("--local_rank", type=int, default=None, help="set by the deepspeed launcher; not read")
    for spec in dataclasses.fields(RunConfig):
        default = "" if spec.default is dataclasses.MISSING else f" (default: {spec.default})"
        options = {"nargs": "?", "const": "true"} if spec.type is bool else {}
        if spec.name == "resume":
            options = {"nargs": "?", "const": "must"}
        if typing.get_origin(spec.type) is list:
            options = {"nargs": "*"}
        help_text = (spec.metadata["help"] + default).replace("%", "%%")
        parser.add_argument(f"--{spec.name}", metavar="VALUE", help=help_text, **options)
    return parser


def _read_recipe(path: str, *, derived: tuple[str, ...] = ()) -> dict:
    """The fields of a recipe and of its bases; `derived` are the recipes that lead here."""
    if not Path(path).is_file():
        raise ValueError(f"recipe {path} does not exist; the recipes are in launch/recipes/")
    try:
        recipe = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {path} is not YAML: {error}") from None
    if not isinstance(recipe, dict):
        raise ValueError(f"recipe {path} is not a mapping of field: value")
    base = recipe.pop("base", None)
    names = {spec.name for spec in dataclasses.fields(RunConfig)}
    for name in recipe:
        if name not in names:
            raise ValueError(_unknown_field(str(name), path))
    if base is None:
        return recipe
    base_path = str(Path(path).parent / str(base))
    if base_path in (path, *derived):
        raise ValueError(f"recipe {path} names base {base!r}, which begins with this recipe; break the circle")
    return {**_read_recipe(base_path, derived=(path, *derived)), **recipe}


def _unknown_field(name: str, where: str) -> str:
    names = [spec.name for spec in dataclasses.fields(RunConfig)]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
    return f"{where} sets {name!r}, which is not a field of a run; the nearest is {near!r}"
