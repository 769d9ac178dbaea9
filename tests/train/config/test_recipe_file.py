"""A recipe that a run writes describes the same run."""

import pytest

from train.config.arguments import load_run_config
from train.config.recipe_file import read_recipe, recipe_fields, write_recipe
from train.config.run_config import RunConfig


def test_a_written_recipe_is_read_back_as_the_same_run(tmp_path):
    config = RunConfig(
        "shards", lr=3e-4, eval_data=None, loggers=["csv"], eval_sequences=5, sparse_layers=[1, 3],
        route_table=["one, with a comma", "two"],
    )  # fmt: skip
    path = tmp_path / "recipe.yaml"
    write_recipe(config, path)
    assert read_recipe(path) == config == load_run_config(["--config", str(path)])


def test_a_recipe_without_train_data_is_for_the_command_line_alone(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("max_steps: 5")
    assert recipe_fields(path) == {"max_steps": 5}
    with pytest.raises(ValueError, match=f"recipe {path} does not set train_data"):
        read_recipe(path)


@pytest.mark.parametrize("base", ["recipe.yaml", "other.yaml"])
def test_recipes_based_on_each_other_are_refused(tmp_path, base):
    (tmp_path / "recipe.yaml").write_text(f"base: {base}")
    (tmp_path / "other.yaml").write_text("base: recipe.yaml")
    with pytest.raises(ValueError, match="which is based on this recipe; break the circle"):
        read_recipe(tmp_path / "recipe.yaml")
