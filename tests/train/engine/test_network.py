"""The network that a run config and its tables describe together."""

import numpy as np
import pytest
import torch

from train.config.run_config import RunConfig
from train.data.layer_tables import LayerTable
from train.engine.network import network_config


def table(**fields) -> LayerTable:
    """What the network reads of a table: not its entries."""
    defaults = {"hash_key": "token", "num_buckets": 0, "num_hashes": 1, "tensors": {}, "predicted_load": np.zeros(5)}
    return LayerTable(**{**defaults, **fields})


def split_tensors(*sizes: int) -> dict[str, torch.Tensor]:
    heavy, groups, period = sizes
    return {"split_table": torch.zeros(heavy, 41), "position_table": torch.zeros(groups, period)}


def network(*tables: LayerTable, **fields):
    layers = list(range(len(tables)))
    config = RunConfig("shards", sparse_layers=layers, route_table=["table"] if tables else [], **fields)
    return network_config(config, vocab_size=40, end_token_id=39, layer_tables=list(tables))


def test_the_network_is_the_run_configs():
    config = RunConfig(
        "shards", context_length=24, hidden_size=12, num_hidden_layers=3, num_attention_heads=3, intermediate_size=20,
        activation="relu", dropout=0.1, position_embedding="sinusoidal", sparse_layers=[0, 2], num_experts=5,
        route_table="table", placement="insert", num_sublayers=2,
    )  # fmt: skip
    found = network_config(config, vocab_size=40, end_token_id=39, layer_tables=[table(), table()])
    expected = {
        "vocab_size": 40, "max_position_embeddings": 24, "hidden_size": 12, "num_hidden_layers": 3,
        "num_attention_heads": 3, "intermediate_size": 20, "activation_function": "relu", "resid_pdrop": 0.1,
        "embd_pdrop": 0.1, "attn_pdrop": 0.1, "position_embedding": "sinusoidal", "sparse_layers": [0, 2],
        "num_experts": 5, "bos_token_id": 39, "eos_token_id": 39, "placement": "insert", "num_sublayers": 2,
        "hash_keys": ["token", "token"],
    }  # fmt: skip
    assert {name: getattr(found, name) for name in expected} == expected


def test_tables_say_what_each_layer_hashes():
    found = network(table(hash_key="bigram", num_buckets=7, num_hashes=2), table(hash_key="next", num_hashes=2))
    assert (found.hash_keys, found.num_hashes, found.num_buckets) == (["bigram", "next"], 2, 7)


def test_tables_say_how_many_turns_experts_take_and_for_how_many_ranks_they_are_balanced():
    found = network(table(rotation_period=4, ep_size=2), table(rotation_period=4))
    assert (found.rotation_period, found.route_table_ep_sizes) == (4, [2, 1])


def test_tables_say_how_much_is_split():
    found = network(table(tensors=split_tensors(2, 1, 6)), table(), table(tensors=split_tensors(3, 0, 6)))
    assert found.split_sizes == [[2, 1, 6], [0, 0, 0], [3, 0, 6]]
    assert network(table()).split_sizes is None


def test_a_learned_router_takes_its_fields_from_the_run_and_hashes_nothing():
    coefficients = {"router_aux_loss_coef": 0.5, "router_z_loss_coef": 0.25, "router_jitter_noise": 0.125}
    config = RunConfig("shards", sparse_layers=[1], router="switch", capacity_factor=1.5, **coefficients)
    found = network_config(config, vocab_size=40, end_token_id=39, layer_tables=[])
    assert found.router == "switch"
    assert {name: getattr(found, name) for name in coefficients} == coefficients
    assert (found.capacity_factor, found.hash_keys, found.route_table_ep_sizes) == (1.5, [], None)


def test_a_dense_network_hashes_nothing():
    found = network()
    assert (found.sparse_layers, found.hash_keys, found.num_hashes, found.split_sizes) == ([], [], 1, None)


@pytest.mark.parametrize(
    "tables, words",
    [
        ([table(num_hashes=2), table()], "num_hashes [2, 1]"),
        ([table(rotation_period=2), table()], "rotation_period [2, 1]"),
        ([table(hash_key="bigram", num_buckets=7), table(hash_key="bigram", num_buckets=9)], "num_buckets [7, 9]"),
    ],
)
def test_tables_that_cannot_be_in_one_network_are_refused(tables, words):
    with pytest.raises(ValueError) as error:
        network(*tables)
    assert words in str(error.value)


def test_a_stack_that_replaces_a_feed_forward_is_refused():
    with pytest.raises(ValueError, match="num_sublayers=3.*placement='replace'"):
        network(table(), num_sublayers=3)
