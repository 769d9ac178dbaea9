"""Recipe files: a run's fields in YAML, which a recipe may inherit from another one in the same folder."""

import dataclasses
from pathlib import Path

import yaml

from data_prep.storage.atomic_file import atomic_file
from train.config.field_names import unknown_field
from train.config.run_config import RunConfig


def read_recipe(path: str | Path) -> RunConfig:
    """The run that a recipe describes without a command line; ValueError as from recipe_fields and RunConfig."""
    fields = recipe_fields(path)
    if "train_data" not in fields:
        raise ValueError(f"recipe {path} does not set train_data")
    return RunConfig(**fields)


def write_recipe(config: RunConfig, path: str | Path) -> None:
    """Write a recipe that sets every field."""
    with atomic_file(path) as file:
        file.write(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False).encode())


def recipe_fields(path: str | Path, *, derived: tuple[Path, ...] = ()) -> dict:
    """The fields that a recipe and its bases set, not converted or checked; `derived`: the recipes that lead to it.

    ValueError if a recipe is missing, is not a mapping, has an unknown field or is based on itself.
    """
    path = Path(path)
    fields = _read_mapping(path)
    base = fields.pop("base", None)
    names = {spec.name for spec in dataclasses.fields(RunConfig)}
    for name in fields:
        if name not in names:
            raise ValueError(unknown_field(str(name), str(path)))
    if base is None:
        return fields
    base_path = path.parent / str(base)
    if base_path in (path, *derived):
        raise ValueError(f"recipe {path} names base {base!r}, which is based on this recipe; break the circle")
    return {**recipe_fields(base_path, derived=(path, *derived)), **fields}


def _read_mapping(path: Path) -> dict:
    if not path.is_file():
        raise ValueError(f"recipe {path} does not exist; the recipes are in launch/recipes/")
    try:
        fields = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {path} is not YAML: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"recipe {path} is not a mapping of field: value")
    return fields
