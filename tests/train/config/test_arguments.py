"""The arguments of a run: the command line wins over the recipe, a recipe over its base, a base over the default."""

import pytest
import yaml

from train.config.arguments import load_run_config
from train.config.run_config import RunConfig
from train.processes.project_root import ROOT

RECIPES = sorted((ROOT / "launch" / "recipes").glob("*.yaml"))


def parse(*argv: str) -> RunConfig:
    return load_run_config(["--train_data", "shards", *argv])


def test_the_command_line_wins_over_the_recipe_and_the_recipe_over_the_default(recipe):
    config = load_run_config([*recipe("train_data: shards\nmax_steps: 5\nhidden_size: 32"), "--max_steps", "7"])
    assert (config.max_steps, config.hidden_size, config.num_hidden_layers) == (
        7,
        32,
        RunConfig("shards").num_hidden_layers,
    )


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_is_a_run_config(path):
    config, recipe = load_run_config(["--config", str(path)]), yaml.safe_load(path.read_text())
    table = recipe.pop("route_table", [])
    assert config.route_table == ([table] if isinstance(table, str) else table)
    assert recipe.items() <= vars(config).items()


def test_a_number_that_yaml_reads_as_text_is_a_number(recipe):
    config = load_run_config(recipe("train_data: shards\nlr: 1e-3\nmax_steps: 2e3"))
    assert (config.lr, config.max_steps) == (0.001, 2000)
    assert type(config.max_steps) is int


@pytest.mark.parametrize(
    "argv, expected",
    [(["1", "2"], [1, 2]), (["[1,2]"], [1, 2]), (["[1, 2]"], [1, 2]), (["1,2"], [1, 2]), ([], []), (["[]"], [])],
)
def test_a_list_may_be_written_in_every_usual_way(argv, expected):
    assert parse("--route_table", "table", "--sparse_layers", *argv).sparse_layers == expected


@pytest.mark.parametrize("argv", [["a, b", "[c]"], ["a"], []])
def test_a_list_of_paths_keeps_them_as_they_are(argv):
    assert parse("--route_table", *argv).route_table == argv


def test_one_route_table_needs_no_list(recipe):
    assert load_run_config(recipe("train_data: shards\nroute_table: a, b")).route_table == ["a, b"]
    assert load_run_config(recipe("train_data: shards\nroute_table: [a, b]")).route_table == ["a", "b"]


@pytest.mark.parametrize(
    "argv, expected",
    [([], "auto"), (["--resume"], "must"), (["--resume", "never"], "never")],
)
def test_resume_alone_means_must(argv, expected):
    assert parse(*argv).resume == expected


def test_a_flag_does_not_swallow_the_next_field():
    config = parse("--dry_run", "--max_steps", "3")
    assert config.dry_run is True and config.max_steps == 3


@pytest.mark.parametrize("none", ["None", "none", "null"])
def test_an_optional_field_can_be_emptied_on_the_command_line(recipe, none):
    argv = recipe("train_data: shards\neval_data: held_out\neval_sequences: 5")
    config = load_run_config([*argv, "--eval_data", none, "--eval_sequences", none])
    assert config.eval_data is None and config.eval_sequences is None


def test_a_field_that_is_not_optional_must_not_be_empty(recipe):
    with pytest.raises(ValueError, match="^max_steps must not be empty$"):
        load_run_config(recipe("train_data: shards\nmax_steps:"))


def test_a_value_without_a_field_is_named():
    with pytest.raises(ValueError, match="'7'"):
        load_run_config(["7", "--train_data", "shards"])


def test_the_rank_from_the_deepspeed_launcher_is_accepted_and_ignored():
    assert parse("--local_rank=1") == parse()


def test_the_error_for_missing_data_says_how_to_name_it():
    with pytest.raises(ValueError, match="train_data is not set.*--config.*--train_data"):
        load_run_config(["--max_steps", "5"])


def test_a_recipe_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="recipe nowhere.yaml does not exist"):
        load_run_config(["--config", "nowhere.yaml"])


@pytest.mark.parametrize("text", ["", "- train_data", "train_data"])
def test_a_recipe_must_be_a_mapping(recipe, text):
    with pytest.raises(ValueError, match="recipe.yaml is not a mapping"):
        load_run_config(recipe(text))


def test_a_recipe_inherits_the_fields_of_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text("train_data: shards\nmax_steps: 5\nlr: 0.1")
    (tmp_path / "recipe.yaml").write_text("base: base.yaml\nmax_steps: 7")
    config = load_run_config(["--config", str(tmp_path / "recipe.yaml")])
    assert (config.train_data, config.max_steps, config.lr) == ("shards", 7, 0.1)


@pytest.mark.parametrize("base", ["recipe.yaml", "5", "[x]"])
def test_a_base_must_be_another_recipe(recipe, base):
    with pytest.raises(ValueError, match="recipe"):
        load_run_config(recipe(f"base: {base}"))


def test_a_recipe_that_is_not_yaml_is_named(recipe):
    with pytest.raises(ValueError, match="recipe.yaml"):
        load_run_config(recipe("train_data: [shards\nmax_steps: }"))


def test_a_large_seed_is_kept_exactly():
    assert parse("--seed", str(2**53 + 1)).seed == 2**53 + 1
