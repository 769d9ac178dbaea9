"""A run config says what was asked for, or which value is wrong and what to write instead."""

import dataclasses

import pytest
import yaml

from models.configuration_hash_gpt import ROUTER_DEFAULTS, ROUTERS
from train.config.arguments import load_run_config
from train.config.field_names import RENAMED
from train.config.run_config import SCHEDULES, RunConfig
from train.processes.project_root import ROOT

RECIPES = sorted((ROOT / "launch" / "recipes").glob("*.yaml"))


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe and return the arguments that name it."""

    def write(text: str) -> list[str]:
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return ["--config", str(path)]

    return write


def parse(*argv: str) -> RunConfig:
    return load_run_config(["--train_data", "shards", *argv])


def error_of(**fields) -> str:
    with pytest.raises(ValueError) as error:
        RunConfig(**{"train_data": "shards", **fields})
    return str(error.value)


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
def test_a_list_may_be_written_in_any_usual_way(argv, expected):
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
def test_a_flag_stands_alone_or_says_true_or_false(argv, expected):
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


@pytest.mark.parametrize(
    "name, value",
    [
        ("max_steps", "many"),
        ("max_steps", 2.5),
        ("max_steps", True),
        ("lr", "fast"),
        ("resume", "maybe"),
        ("eval_sequences", "x"),
        ("sparse_layers", 3),
        ("sparse_layers", "one"),
        ("num_experts", [4]),
    ],
)
def test_a_value_of_another_type_is_named_with_its_field(name, value):
    assert f"{name}={value!r}" in error_of(**{name: value})


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
    with pytest.raises(ValueError, match=f"the command line sets '{old}': {old} is {new} now$"):
        parse(f"--{old}", "5")
    with pytest.raises(ValueError, match=f"recipe.yaml sets '{old}': {old} is {new} now$"):
        load_run_config(recipe(f"train_data: shards\n{old}: 5"))


def test_old_names_are_no_fields_and_new_names_are():
    fields = {spec.name for spec in dataclasses.fields(RunConfig)}
    assert set(RENAMED.values()) <= fields and not RENAMED.keys() & fields


def test_a_word_that_belongs_to_no_field_is_named():
    with pytest.raises(ValueError, match="'7'"):
        load_run_config(["7", "--train_data", "shards"])


def test_the_deepspeed_launchers_rank_is_accepted_and_not_a_field():
    assert parse("--local_rank=1") == parse()


def test_a_run_without_data_is_told_how_to_name_it():
    with pytest.raises(ValueError, match="train_data is not set.*--config.*--train_data"):
        load_run_config(["--max_steps", "5"])


def test_a_recipe_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="recipe nowhere.yaml does not exist"):
        load_run_config(["--config", "nowhere.yaml"])


@pytest.mark.parametrize("text", ["", "- train_data", "train_data"])
def test_a_recipe_must_be_a_mapping(recipe, text):
    with pytest.raises(ValueError, match="recipe.yaml is not a mapping"):
        load_run_config(recipe(text))


def test_a_recipe_takes_over_the_fields_of_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text("train_data: shards\nmax_steps: 5\nlr: 0.1")
    (tmp_path / "recipe.yaml").write_text("base: base.yaml\nmax_steps: 7")
    config = load_run_config(["--config", str(tmp_path / "recipe.yaml")])
    assert (config.train_data, config.max_steps, config.lr) == ("shards", 7, 0.1)


@pytest.mark.parametrize("base", ["recipe.yaml", "5", "[x]"])
def test_a_base_that_is_no_other_recipe_is_refused(recipe, base):
    with pytest.raises(ValueError, match="recipe"):
        load_run_config(recipe(f"base: {base}"))


def test_a_recipe_that_is_not_yaml_is_named(recipe):
    with pytest.raises(ValueError, match="recipe.yaml"):
        load_run_config(recipe("train_data: [shards\nmax_steps: }"))


@pytest.mark.parametrize(
    "name, value, allowed",
    [
        ("optimizer", "lion", "adam, sgd"),
        ("schedule", "linear", ", ".join(SCHEDULES)),
        ("zero_stage", 4, "0, 1, 2, 3"),
        ("precision", "fp16", "fp32, bf16"),
        ("position_embedding", "rotary", "learned, sinusoidal"),
        ("placement", "append", "replace, insert"),
        ("loggers", ["mlflow"], "tensorboard, csv, wandb"),
    ],
)
def test_a_choice_that_does_not_exist_is_named_with_those_that_do(name, value, allowed):
    message = error_of(**{name: value})
    assert name in message and str(value).strip("[]") in message and allowed in message


@pytest.mark.parametrize(
    "name",
    "context_length hidden_size num_hidden_layers num_attention_heads max_steps global_batch_size micro_batch_size ep_size log_every".split(),
)
def test_a_size_of_zero_is_refused(name):
    assert error_of(**{name: 0}) == f"{name}=0 must be at least 1"


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"hidden_size": 10, "num_attention_heads": 4}, ["hidden_size=10", "num_attention_heads=4"]),
        ({"sparse_layers": [1], "route_table": "t", "num_experts": 6, "ep_size": 4}, ["6 experts", "ep_size=4"]),
        ({"sparse_layers": [1, 3]}, ["sparse_layers=[1, 3]", "route_table", "data_prep.build_table"]),
        ({"sparse_layers": [1], "router": "base", "route_table": "t"}, ["router=base", "route_table=['t']"]),
        (
            {"schedule": "warmup_stable_decay", "max_steps": 10, "warmup_steps": 4, "decay_steps": 7},
            ["warmup_steps=4", "decay_steps=7", "max_steps=10"],
        ),
    ],
)
def test_values_that_contradict_each_other_are_all_named(fields, words):
    message = error_of(**fields)
    assert all(word in message for word in words), message


def test_a_dense_run_ignores_its_tables():
    assert RunConfig("shards", route_table=["one", "two"]).sparse_layers == []


@pytest.mark.parametrize("router", ROUTERS)
def test_every_router_of_the_network_can_be_chosen_and_only_hashes_need_a_table(router):
    table = ["table"] if router == "hash" else []
    assert RunConfig("shards", sparse_layers=[1], router=router, route_table=table).router == router


def test_the_fields_of_routers_have_the_same_defaults_as_in_the_network():
    config = RunConfig("shards")
    assert {name: getattr(config, name) for name in ROUTER_DEFAULTS} == ROUTER_DEFAULTS


def test_a_dense_run_needs_neither_table_nor_divisible_experts():
    assert RunConfig("shards", num_experts=5, ep_size=2).sparse_layers == []


@pytest.mark.parametrize(
    "name, value",
    [
        ("lr", -1.0), ("lr", "nan"), ("dropout", 1.5), ("max_grad_norm", -1.0), ("beta2", 2.0), ("warmup_steps", -5),
        ("eval_sequences", -1), ("eval_sequences", 0), ("intermediate_size", 0), ("vocab_size", 0), ("dry_run_world_size", 0),
        ("lr", True), ("run_dir", ["a"]),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_refused(name, value):
    assert f"{name}=" in error_of(**{name: value})


@pytest.mark.parametrize("layers", [[4], [-1], [1, 1]])
def test_a_sparse_layer_that_does_not_exist_or_is_named_twice_is_refused(layers):
    message = error_of(sparse_layers=layers, route_table="table", num_hidden_layers=4)
    assert f"sparse_layers={layers}" in message and "0 to 3" in message


@pytest.mark.parametrize("num_tables", [1, 3])
def test_there_is_one_route_table_for_all_sparse_layers_or_one_for_each(num_tables):
    tables = ["table"] * num_tables
    assert RunConfig("shards", sparse_layers=[0, 1, 3], route_table=tables).route_table == tables


@pytest.mark.parametrize("num_tables", [2, 4])
def test_another_number_of_route_tables_is_refused(num_tables):
    message = error_of(sparse_layers=[0, 1, 3], route_table=["table"] * num_tables)
    assert f"{num_tables} files for 3 sparse layers [0, 1, 3]" in message


def test_an_infinite_number_of_steps_is_not_an_integer():
    assert "steps='inf'" in error_of(max_steps="inf")


def test_a_large_seed_is_kept_exactly():
    assert parse("--seed", str(2**53 + 1)).seed == 2**53 + 1
