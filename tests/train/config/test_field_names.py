"""A name that is not a field of a run is refused with its new name, or with the nearest one."""

import dataclasses

import pytest

from train.config.arguments import load_run_config
from train.config.field_names import RENAMED
from train.config.run_config import RunConfig


def parse(*argv: str) -> RunConfig:
    return load_run_config(["--train_data", "shards", *argv])


@pytest.mark.parametrize(
    "name, nearest", [("max_step", "max_steps"), ("ep-size", "ep_size"), ("num_expert", "num_experts")]
)
def test_a_misspelt_field_names_the_nearest(recipe, name, nearest):
    for argv in ([f"--{name}", "5"], [f"--{name}=5"]):
        with pytest.raises(ValueError, match=f"the command line sets '{name}'.*nearest is '{nearest}'"):
            parse(*argv)
    with pytest.raises(ValueError, match=f"recipe.yaml sets '{name}'.*nearest is '{nearest}'"):
        load_run_config(recipe(f"train_data: shards\n{name}: 5"))


@pytest.mark.parametrize("old, new", RENAMED.items())
def test_an_old_name_is_refused_with_its_new_name(recipe, old, new):
    with pytest.raises(ValueError, match=f"the command line sets '{old}', which is now called '{new}'$"):
        parse(f"--{old}", "5")
    with pytest.raises(ValueError, match=f"recipe.yaml sets '{old}', which is now called '{new}'$"):
        load_run_config(recipe(f"train_data: shards\n{old}: 5"))


def test_old_names_are_not_fields_and_new_names_are():
    fields = {spec.name for spec in dataclasses.fields(RunConfig)}
    assert set(RENAMED.values()) <= fields and not RENAMED.keys() & fields
