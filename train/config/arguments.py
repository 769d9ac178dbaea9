"""The arguments of a run: a recipe (YAML) and the command line, merged into a RunConfig."""

import argparse
import dataclasses
import typing

from train.config.field_names import unknown_field
from train.config.recipe_file import recipe_fields
from train.config.run_config import RunConfig


def load_run_config(argv: list[str]) -> RunConfig:
    """`--config recipe.yaml --any_field value ...` -> RunConfig; the command line wins over the recipe.

    ValueError for a recipe that is missing or not a mapping, an unknown field (naming the new or the nearest one), or
    a value that its field cannot have.
    """
    parser = _argument_parser()
    known, unknown = parser.parse_known_args(argv)
    for argument in unknown:
        if argument.startswith("--"):
            raise ValueError(unknown_field(argument[2:].split("=")[0], "the command line"))
        raise ValueError(f"the command line has {argument!r}, which belongs to no --field")
    given = {name: value for name, value in vars(known).items() if name not in ("config", "local_rank")}
    recipe = recipe_fields(known.config) if known.config else {}
    values = {**recipe, **given}
    if "train_data" not in values:
        raise ValueError("train_data is not set; name a recipe with --config, or a folder with --train_data")
    return RunConfig(**values)


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch/train.py",
        description="Train a hash-layer language model.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,  # `--max_step` must be an error, not stand for `--max_steps`
    )
    parser.add_argument("--config", metavar="FILE", default=None, help="recipe, a YAML file of the fields below")
    parser.add_argument(
        "--local_rank", metavar="RANK", type=int, default=None, help="set by the deepspeed launcher; ignored"
    )
    for spec in dataclasses.fields(RunConfig):
        parser.add_argument(f"--{spec.name}", metavar="VALUE", help=_help(spec), **_num_values(spec))
    return parser


def _num_values(spec: dataclasses.Field) -> dict:
    """A flag alone is true, --resume alone is must, and a list takes any number of values."""
    if typing.get_origin(spec.type) is list:
        return {"nargs": "*"}
    alone = {bool: "true"}.get(spec.type) or {"resume": "must"}.get(spec.name)
    return {"nargs": "?", "const": alone} if alone else {}


def _help(spec: dataclasses.Field) -> str:
    notes = [" | ".join(map(str, spec.metadata.get("choices", ())))]
    if spec.default is not dataclasses.MISSING:
        notes.append(f"default: {spec.default}")
    text = "; ".join(filter(None, notes))
    return (spec.metadata["help"] + (f" ({text})" if text else "")).replace("%", "%%")
