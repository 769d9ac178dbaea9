"""A run config holds the values it was given, or names the wrong one and what to write instead."""

import pytest

from models.choices import ROUTER_DEFAULTS, ROUTERS
from train.config.run_config import SCHEDULES, RunConfig


def error_of(**fields) -> str:
    with pytest.raises(ValueError) as error:
        RunConfig(**{"train_data": "shards", **fields})
    return str(error.value)


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
def test_an_unknown_choice_is_named_with_the_known_ones(name, value, allowed):
    message = error_of(**{name: value})
    assert name in message and str(value).strip("[]") in message and allowed in message


@pytest.mark.parametrize(
    "name",
    ["context_length", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_steps", "global_batch_size",
     "micro_batch_size", "ep_size", "log_every"],
)  # fmt: skip
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


def test_router_fields_have_the_same_defaults_as_in_the_network():
    config = RunConfig("shards")
    assert {name: getattr(config, name) for name in ROUTER_DEFAULTS} == ROUTER_DEFAULTS


def test_a_dense_run_needs_neither_table_nor_divisible_experts():
    assert RunConfig("shards", num_experts=5, ep_size=2).sparse_layers == []


@pytest.mark.parametrize(
    "name, value",
    [
        ("lr", -1.0), ("lr", "nan"), ("dropout", 1.5), ("max_grad_norm", -1.0), ("beta2", 2.0), ("warmup_steps", -5),
        ("eval_sequences", -1), ("eval_sequences", 0), ("intermediate_size", 0), ("vocab_size", 0),
        ("dry_run_world_size", 0), ("lr", True), ("run_dir", ["a"]),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused(name, value):
    assert f"{name}=" in error_of(**{name: value})


@pytest.mark.parametrize("layers", [[4], [-1], [1, 1]])
def test_a_missing_or_repeated_sparse_layer_is_refused(layers):
    message = error_of(sparse_layers=layers, route_table="table", num_hidden_layers=4)
    assert f"sparse_layers={layers}" in message and "0 to 3" in message


@pytest.mark.parametrize("num_tables", [1, 3])
def test_one_route_table_serves_all_sparse_layers_or_each_has_its_own(num_tables):
    tables = ["table"] * num_tables
    assert RunConfig("shards", sparse_layers=[0, 1, 3], route_table=tables).route_table == tables


@pytest.mark.parametrize("num_tables", [2, 4])
def test_another_number_of_route_tables_is_refused(num_tables):
    message = error_of(sparse_layers=[0, 1, 3], route_table=["table"] * num_tables)
    assert f"{num_tables} files for 3 sparse layers [0, 1, 3]" in message


def test_an_infinite_number_of_steps_is_not_an_integer():
    assert "steps='inf'" in error_of(max_steps="inf")
