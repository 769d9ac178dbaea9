"""Each sparse layer gets its table from its file, or the file is refused with both values."""

import numpy as np
import pytest
import torch

from data_prep.counts.hash_keys import KEYS, route_keys
from data_prep.tables.apply_table import apply_table
from data_prep.tables.frequent_tokens import FrequentTokenSplit
from data_prep.tables.route_table import RouteTable
from data_prep.tables.route_table_file import read_route_table, write_route_table
from models.choices import HASH_KEYS
from models.hash_keys import TokenContext, hash_keys, previous_tokens, token_context
from models.modeling_hash_gpt import HashGPTForCausalLM
from train.config.run_config import RunConfig
from train.data.layer_tables import LayerTable, open_layer_tables
from train.engine.network import network_config

VOCAB, NUM_EXPERTS, LENGTH, TOKENIZER = 5, 3, 4, "sha256:tokenizer"
FACTS = {"vocab_size": VOCAB, "tokenizer_digest": TOKENIZER}
ROWS = {"previous": VOCAB + 1, "bigram": 7, "position": LENGTH}  # of the keys that are not token ids

# Token 3 is split: after token 0 its position decides, after any other token expert 2 serves it.
SPLIT = FrequentTokenSplit(
    split_index=np.array([-1, -1, -1, 0, -1], dtype=np.int32),
    split_table=np.array([[-1, 2, 2, 2, 2, 2]], dtype=np.int32),
    position_table=np.array([[0, 1]], dtype=np.int32),
)


@pytest.fixture
def write(tmp_path):
    """Write a table file; table j sends key k to expert (first + j + k) % 3."""

    def write_table(name="table", *, num_tables=1, first=0, choices=1, hash_key="token", **fields) -> str:
        shape = (num_tables, ROWS.get(hash_key, VOCAB), choices)
        tables = first + sum(np.indices(shape)) % NUM_EXPERTS
        facts = {
            "hash_key": hash_key,
            "num_buckets": 7 if hash_key == "bigram" else 0,
            "context_length": LENGTH,
            **FACTS,
        }
        path = tmp_path / f"{name}.safetensors"
        table = RouteTable((tables % NUM_EXPERTS).astype(np.int32), NUM_EXPERTS, "imported", 0, **{**facts, **fields})
        write_route_table(path, table)
        return str(path)

    return write_table


def run_config(*paths: str, layers: list[int], **fields) -> RunConfig:
    return RunConfig(
        "shards", route_table=list(paths), sparse_layers=layers, num_experts=NUM_EXPERTS, context_length=LENGTH,
        hidden_size=4, num_attention_heads=2, **fields,
    )  # fmt: skip


def open_tables(*paths: str, layers: list[int], **fields) -> list[LayerTable]:
    return open_layer_tables(run_config(*paths, layers=layers, **fields), **FACTS)


def error_of(*paths: str, layers: list[int], **fields) -> str:
    with pytest.raises(ValueError) as error:
        open_tables(*paths, layers=layers, **fields)
    return str(error.value)


def model_with(config: RunConfig, tables: list[LayerTable]) -> HashGPTForCausalLM:
    model = HashGPTForCausalLM(network_config(config, vocab_size=VOCAB, end_token_id=0, layer_tables=tables))
    model.set_route_tables([table.tensors for table in tables])
    return model


def experts_of_first_keys(tables: list[LayerTable]) -> list[int]:
    return [int(table.tensors["route_table"][0, 0]) for table in tables]


# ---- which table serves which layer ----


def test_the_tables_of_one_file_go_to_the_layers_in_their_order(write):
    assert experts_of_first_keys(open_tables(write(num_tables=3), layers=[3, 0])) == [0, 1]


def test_each_layer_may_have_a_file_of_its_own(write):
    one, two = write("one", first=1), write("two", first=2)
    assert experts_of_first_keys(open_tables(two, one, layers=[0, 1])) == [2, 1]


def test_a_file_that_is_named_for_two_layers_gives_them_different_tables(write):
    pair, other = write("pair", num_tables=2), write("other", first=2)
    assert experts_of_first_keys(open_tables(pair, other, pair, layers=[0, 1, 2])) == [0, 2, 1]


def test_all_layers_can_share_the_first_table(write):
    tables = open_tables(write(num_tables=2, first=1), layers=[0, 1, 2], share_route_table=True)
    assert experts_of_first_keys(tables) == [1, 1, 1]


def test_layers_that_share_a_file_among_several_share_its_first_table(write):
    pair, other = write("pair", num_tables=2), write("other", first=2)
    tables = open_tables(pair, other, pair, layers=[0, 1, 2], share_route_table=True)
    assert experts_of_first_keys(tables) == [0, 2, 0]


def test_a_dense_model_opens_no_file():
    assert open_tables("nowhere", layers=[]) == []


def test_a_layer_table_agrees_with_its_file(write):
    load = np.array([[6, 0, 4], [2, 5, 3]])
    path = write(num_tables=2, choices=2, hash_key="bigram", load=load)
    tables = open_tables(path, layers=[0, 1])
    assert [(table.hash_key, table.num_buckets, table.num_hashes) for table in tables] == [("bigram", 7, 2)] * 2
    assert [table.predicted_load.tolist() for table in tables] == load.tolist()


def test_a_layer_table_states_its_rotation_and_ranks(write):
    [table] = open_tables(write(choices=4, columns="rotation", ep_size=3), layers=[0])
    assert (table.num_hashes, table.rotation_period, table.ep_size) == (1, 4, 3)


@pytest.mark.parametrize(
    "choices, fields",
    [(1, {}), (1, {"split": SPLIT}), (3, {"columns": "rotation"}), (2, {"columns": "rotation", "split": SPLIT})],
)
def test_the_model_looks_up_the_same_experts_as_data_prep(write, choices, fields):
    path = write(choices=choices, **fields)
    model = model_with(run_config(path, layers=[1]), open_tables(path, layers=[1]))
    ids = torch.randint(0, VOCAB, (6, LENGTH), generator=torch.Generator().manual_seed(0))
    position = torch.arange(LENGTH).expand_as(ids)
    [router] = model.hash_routers
    [routes] = router(TokenContext(ids, previous_tokens(ids, None, none=VOCAB), position))
    assert routes.expert_N.tolist() == apply_table(read_route_table(path), 0, ids.numpy()).ravel().tolist()


# ---- the model's records ----


def test_the_model_records_rotation_and_ranks(write):
    config = run_config(write(choices=3, columns="rotation", ep_size=3, num_tables=2), layers=[0, 2])
    network = model_with(config, open_layer_tables(config, **FACTS)).config
    assert (network.rotation_period, network.num_hashes, network.route_table_ep_sizes) == (3, 1, [3, 3])


def test_tables_of_different_rotation_periods_are_refused(write):
    paths = [write("three", choices=3, columns="rotation"), write("one")]
    config = run_config(*paths, layers=[0, 1])
    with pytest.raises(ValueError, match=r"rotation_period \[3, 1\]; all sparse layers"):
        model_with(config, open_layer_tables(config, **FACTS))


@pytest.mark.parametrize("key", KEYS)
def test_the_digest_of_every_key_is_the_models(write, key):
    assert_digests_are_the_models(write(hash_key=key, num_tables=2), layers=[0, 2])


def test_the_model_knows_the_keys_that_are_counted():
    assert HASH_KEYS == KEYS


@pytest.mark.parametrize("key", KEYS)
def test_the_model_computes_the_keys_that_are_counted(key):
    tokens = np.random.default_rng(0).integers(0, VOCAB, (3, LENGTH))
    future = np.roll(tokens, -1, axis=1)
    options = {"vocab_size": VOCAB, "num_buckets": 7, "context_length": LENGTH}
    ids, later = torch.from_numpy(tokens), torch.from_numpy(future)
    context = token_context(ids, none=VOCAB, next_ids=later, predicted_ids=later)
    keys = hash_keys(key, context, none=VOCAB, num_buckets=7)
    assert np.array_equal(keys.numpy(), route_keys(tokens, hash_key=key, future=future, **options))


@pytest.mark.parametrize("choices", [2, 4])
def test_the_digest_of_several_hashes_is_the_models(write, choices):
    assert_digests_are_the_models(write(choices=choices), layers=[1])


def test_the_digest_of_split_tables_is_the_models(write):
    split, whole = write("split", split=SPLIT), write("whole")
    digests = assert_digests_are_the_models(split, whole, layers=[1, 2])
    assert len(set(digests)) == 2  # the route tables alone are equal


@pytest.mark.parametrize("fields", [{}, {"split": SPLIT}])
def test_the_digest_of_rotation_is_the_models(write, fields):
    assert_digests_are_the_models(write(choices=3, columns="rotation", **fields), layers=[1])


def assert_digests_are_the_models(*paths: str, layers: list[int]) -> list[str]:
    config = run_config(*paths, layers=layers)
    tables = open_layer_tables(config, **FACTS)
    model = model_with(config, tables)
    digests = [table.layer_digest for table in tables]
    assert digests == model.config.route_table_digests
    return digests


def test_split_sizes_are_split_tokens_groups_and_period(write):
    tables = open_tables(write("split", split=SPLIT), write("whole"), layers=[0, 1])
    assert [table.split_sizes for table in tables] == [[1, 1, 2], [0, 0, 0]]


# ---- files that do not fit ----


def test_fewer_tables_than_layers_are_refused(write):
    message = error_of(write(num_tables=2), layers=[0, 1, 2])
    assert "2 tables for 3 sparse layers of [0, 1, 2]" in message
    assert "--num_tables 3" in message and "share_route_table" in message


def test_a_file_named_more_often_than_it_has_tables_is_refused(write):
    pair, other = write("pair"), write("other")
    message = error_of(pair, other, pair, layers=[0, 1, 2])
    assert f"{pair} holds 1 tables for 2 sparse layers" in message


def test_a_table_of_several_experts_per_token_is_refused(write):
    path = write(choices=2, columns="top_k")
    message = error_of(path, layers=[0])
    assert f"{path} has top_k=2" in message and "use 1" in message


def test_a_position_table_of_another_length_is_refused(write):
    path = write(hash_key="position")
    with pytest.raises(ValueError) as error:
        open_layer_tables(RunConfig("shards", route_table=path, sparse_layers=[0], num_experts=3), **FACTS)
    message = str(error.value)
    assert f"{path} is a table of 4 positions" in message and "context_length=128" in message
    assert "--context_length 128" in message


def test_a_token_table_fits_any_context_length(write):
    assert len(open_tables(write(context_length=99), layers=[0])) == 1


@pytest.mark.parametrize("name, value", [("vocab_size", 6), ("tokenizer_digest", "sha256:0ther")])
def test_a_table_of_another_vocabulary_or_tokenizer_is_refused(write, name, value):
    with pytest.raises(ValueError) as error:
        open_layer_tables(run_config(write(), layers=[0]), **{**FACTS, name: value})
    assert str(FACTS[name]) in str(error.value) and str(value) in str(error.value)


def test_every_file_is_checked(write):
    assert "sha256:0ther" in error_of(write("one"), write("two", tokenizer_digest="sha256:0ther"), layers=[0, 1])
