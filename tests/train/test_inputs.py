"""Data, tokenizer, table and network that do not fit together are refused with both values."""

import dataclasses
import re
import shutil

import numpy as np
import pytest

from data_prep.shards.manifest import make_manifest, read_manifest, write_manifest
from data_prep.storage.tensor_file import tensor_digest
from data_prep.tables.route_table_file import read_route_table, write_route_table
from models.modeling_hash_gpt import HashGPTForCausalLM
from tests.tiny_run import tiny_run_fields
from train.config.run_config import RunConfig
from train.inputs import open_inputs


def tiny_config(tiny_data, **overrides) -> RunConfig:
    return RunConfig(**tiny_run_fields(tiny_data, **overrides))


def open_tiny(tiny_data, **overrides):
    return open_inputs(tiny_config(tiny_data, **overrides))


@pytest.fixture
def error_of(tiny_data):
    def message(**overrides) -> str:
        with pytest.raises(ValueError) as error:
            open_tiny(tiny_data, **overrides)
        return str(error.value)

    return message


@pytest.fixture
def changed_table(tiny_data, tmp_path):
    """Write the tiny table with some fields changed to another file."""

    def write(**fields) -> str:
        path = tmp_path / "changed.safetensors"
        write_route_table(path, dataclasses.replace(read_route_table(tiny_data.route_table), **fields))
        return str(path)

    return write


@pytest.fixture
def shards_of_another_tokenizer(tiny_data, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(tiny_data.valid, folder)
    manifest = read_manifest(folder)
    facts = {"vocab_size": manifest.vocab_size, "end_token": "<end>", "end_token_id": manifest.end_token_id}
    write_manifest(folder, make_manifest(list(manifest.shards), tokenizer_digest="sha256:0ther", **facts))
    return folder


def test_inputs_that_fit_are_opened(tiny_data):
    inputs = open_tiny(tiny_data)
    table = read_route_table(tiny_data.route_table)
    assert inputs.vocab_size == 300
    assert inputs.end_token_id == 299  # the end token comes last
    assert [tensors["route_table"].tolist() for tensors in inputs.route_tables] == table.tables[:1].tolist()
    assert inputs.predicted_load.tolist() == table.load[:1].tolist()
    assert inputs.route_table_digests == [tensor_digest(table.tables[0])]
    assert (inputs.tokenizer_dir / "tokenizer.json").is_file()


def test_each_sparse_layer_has_its_own_table(tiny_data):
    inputs = open_tiny(tiny_data, sparse_layers=[0, 1])
    tables = [tensors["route_table"].tolist() for tensors in inputs.route_tables]
    assert tables == read_route_table(tiny_data.route_table).tables.tolist()
    assert len(set(inputs.route_table_digests)) == 2 and inputs.predicted_load.shape == (2, 4)


@pytest.mark.parametrize("table", [[], ["nowhere"]])
def test_a_dense_model_needs_no_table_and_reads_none(tiny_data, table):
    inputs = open_tiny(tiny_data, sparse_layers=[], route_table=table)
    assert inputs.layer_tables == [] and inputs.route_tables == []
    assert inputs.predicted_load is None and inputs.route_table_digests is None


def test_a_learned_router_needs_no_table(tiny_data):
    inputs = open_tiny(tiny_data, router="gshard", route_table=[])
    assert inputs.layer_tables == [] and inputs.predicted_load is None
    config = tiny_config(tiny_data, router="gshard", route_table=[])
    assert inputs.network(config).router == "gshard"
    assert inputs.resume_compatibility(config)["router"] == "gshard" and inputs.notices(config) == []


def test_a_run_whose_perplexity_is_not_comparable_has_a_notice(tiny_data):
    config = tiny_config(tiny_data, router="expert_choice", route_table=[])
    [notice] = open_inputs(config).notices(config)
    assert "not comparable" in notice and "cannot generate" in notice


@pytest.mark.parametrize("sparse_layers", [[], [1], [0, 1]])
def test_the_network_takes_the_tables_and_records_their_digests(tiny_data, sparse_layers):
    config = tiny_config(tiny_data, sparse_layers=sparse_layers)
    inputs = open_inputs(config)
    model = HashGPTForCausalLM(inputs.network(config))
    model.set_route_tables(inputs.route_tables)
    assert model.config.vocab_size == 300 and model.config.eos_token_id == 299
    assert model.config.route_table_digests == inputs.route_table_digests


def test_resume_compatibility_covers_tokenizer_data_tables_and_network(tiny_data):
    config = tiny_config(tiny_data)
    compatibility = open_inputs(config).resume_compatibility(config)
    assert compatibility["tokenizer_digest"] == read_manifest(tiny_data.train).tokenizer_digest
    assert compatibility["corpus_digest"] == read_manifest(tiny_data.train).corpus_digest
    assert compatibility["route_table_digests"] == [tensor_digest(read_route_table(tiny_data.route_table).tables[0])]
    assert compatibility["hidden_size"] == 16 and "ep_size" not in compatibility


def test_validation_is_optional(tiny_data):
    assert open_tiny(tiny_data, eval_data=None).validation is None


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(error_of):
    message = error_of(vocab_size=299)
    assert "vocab_size=299" in message and "300" in message


def test_a_padded_vocabulary_needs_a_table_of_its_size(error_of):
    message = error_of(vocab_size=320)
    assert "300" in message and "vocab_size=320" in message and "--vocab_size 320" in message


def test_less_data_than_one_batch_is_refused(tiny_data, error_of):
    held = open_tiny(tiny_data).train.num_sequences
    message = error_of(global_batch_size=1000)
    assert f"{held} sequences of 16 tokens" in message and "global_batch_size=1000" in message


def test_a_table_for_another_number_of_experts_is_refused(error_of):
    message = error_of(num_experts=8)
    assert "num_experts=4" in message and "num_experts=8" in message


def test_a_table_for_another_tokenizer_is_refused(tiny_data, error_of, changed_table):
    message = error_of(route_table=changed_table(tokenizer_digest="sha256:0ther"))
    assert "sha256:0ther" in message and read_manifest(tiny_data.train).tokenizer_digest in message


def test_a_table_of_next_tokens_makes_an_oracle(tiny_data, changed_table):
    config = tiny_config(tiny_data, route_table=changed_table(hash_key="next"))
    assert open_inputs(config).network(config).hash_keys == ["next"]


def test_a_table_of_several_hashes_makes_multi_hash(tiny_data, changed_table):
    tables, load = (getattr(read_route_table(tiny_data.route_table), name) for name in ("tables", "load"))
    two_each = changed_table(tables=np.concatenate([tables, (tables + 1) % 4], axis=2), load=np.zeros_like(load))
    config = tiny_config(tiny_data, route_table=two_each)
    assert open_inputs(config).network(config).num_hashes == 2


# ---- predicted tokens ----


@pytest.fixture
def with_predictions(tiny_data, tmp_path):
    """A copy of a folder of token shards, with predictions/ in which every token predicts itself."""

    def copy(folder) -> str:
        copied = tmp_path / f"predicted_{folder.name}"
        shutil.copytree(folder, copied)
        shutil.copytree(folder, copied / "predictions")
        return str(copied)

    return copy


def test_tables_of_predicted_tokens_need_predictions_of_all_data(tiny_data, error_of, changed_table, with_predictions):
    table, train = changed_table(hash_key="predicted"), with_predictions(tiny_data.train)
    for missing, data in ((tiny_data.train, {}), (tiny_data.valid, {"train_data": train})):
        message = error_of(route_table=table, **data)
        assert f"{missing} has no predictions/" in message and "predicted tokens" in message


def test_predictions_come_with_every_batch(tiny_data, changed_table, with_predictions):
    data = {"train_data": with_predictions(tiny_data.train), "eval_data": with_predictions(tiny_data.valid)}
    config = tiny_config(tiny_data, route_table=changed_table(hash_key="predicted"), **data)
    inputs = open_inputs(config)
    assert inputs.network(config).hash_keys == ["predicted"]
    for part in (inputs.train, inputs.validation):
        batch = part.batch(np.array([[0, 1]]))
        assert batch.predicted.tolist() == batch.input_ids.tolist()


def test_predictions_without_validation_are_those_of_training(tiny_data, changed_table, with_predictions):
    data = {"train_data": with_predictions(tiny_data.train), "eval_data": None}
    assert open_tiny(tiny_data, route_table=changed_table(hash_key="predicted"), **data).validation is None


def test_validation_data_of_another_tokenizer_is_refused(tiny_data, error_of, shards_of_another_tokenizer):
    message = error_of(eval_data=str(shards_of_another_tokenizer))
    assert str(shards_of_another_tokenizer) in message and "sha256:0ther" in message
    assert str(tiny_data.train) in message and read_manifest(tiny_data.train).tokenizer_digest in message


def test_validation_data_shorter_than_one_sequence_is_refused(tiny_data, error_of):
    num_tokens = read_manifest(tiny_data.valid).num_tokens
    message = error_of(context_length=num_tokens, global_batch_size=1, micro_batch_size=1)
    assert str(tiny_data.valid) in message and f"{num_tokens + 1} tokens" in message


@pytest.mark.parametrize("field", ["train_data", "eval_data", "route_table"])
def test_a_path_that_does_not_exist_is_named(tiny_data, tmp_path, field):
    missing = str(tmp_path / "nowhere")
    with pytest.raises((ValueError, OSError), match=re.escape(missing)):
        open_tiny(tiny_data, **{field: missing})


def test_a_table_balanced_for_another_ep_size_has_a_notice(tiny_data):
    config = RunConfig(**tiny_run_fields(tiny_data, ep_size=4))
    [notice] = open_inputs(config).notices(config)
    assert "balanced for ep_size=2" in notice and "the run has ep_size=4" in notice
    config = RunConfig(**tiny_run_fields(tiny_data, ep_size=2))
    assert open_inputs(config).notices(config) == []
