"""A run reads mixtures, holds out the same sequences in every run, and refuses data that do not fit."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from data_prep.documents.document_rules import DocumentRules
from data_prep.shards.manifest import make_manifest, read_manifest, write_manifest
from data_prep.shards.mixture import read_mixture, write_mixture
from data_prep.shards.sequences import make_addresses
from data_prep.shards.shard_writer import ShardWriter
from data_prep.shards.token_stream import TokenStream
from tests.tiny_run import tiny_run_fields
from train.config.run_config import RunConfig
from train.data.sample_order import SampleOrder
from train.inputs import open_inputs


@pytest.fixture(scope="module")
def mixed(tiny_data, tmp_path_factory):
    """A mixture of the tiny corpora: half an epoch of the training text, two epochs of the validation text."""
    folder = tmp_path_factory.mktemp("mixed")
    write_mixture(folder / "mixture.yaml", {str(tiny_data.train): 0.5, str(tiny_data.valid): 2})
    return folder


def open_tiny(tiny_data, **fields):
    return open_inputs(RunConfig(**tiny_run_fields(tiny_data, **fields)))


def error_of(tiny_data, **fields) -> str:
    with pytest.raises(ValueError) as error:
        open_tiny(tiny_data, **fields)
    return str(error.value)


def texts(sequences, addresses=None) -> list[tuple]:
    """Sequences as tuples of ids."""
    addresses = sequences.first(sequences.num_sequences) if addresses is None else addresses
    return [tuple(ids) for ids in sequences.batch(addresses).input_ids.tolist()]


def test_a_folder_is_read_in_the_order_of_its_samples(tiny_data):
    inputs = open_tiny(tiny_data, seed=5)
    expected = SampleOrder(inputs.train.num_sequences, seed=5).samples(0, 1000)
    assert inputs.order.addresses(0, 1000).tolist() == make_addresses(0, expected).tolist()


def test_the_parts_of_a_mixture_come_for_their_epochs(tiny_data, mixed):
    inputs = open_tiny(tiny_data, train_data=str(mixed))
    num_train, num_valid = (part.num_sequences for part in inputs.train.parts)
    assert inputs.order.num_slots == (num_train + 1) // 2 + 2 * num_valid
    parts, drawn = inputs.order.addresses(0, inputs.order.num_slots).T
    assert set(np.bincount(drawn[parts == 0], minlength=num_train)) == {0, 1}
    assert set(np.bincount(drawn[parts == 1], minlength=num_valid)) == {2}
    parts = [TokenStream(folder) for folder in (tiny_data.train, tiny_data.valid)]
    assert texts(inputs.train, np.array([[0, 0], [1, 0]])) == [tuple(part.read(0, 16).tolist()) for part in parts]


def test_a_run_records_the_digest_of_its_mixture(tiny_data, mixed):
    config = RunConfig(**tiny_run_fields(tiny_data, train_data=str(mixed / "mixture.yaml")))
    inputs = open_inputs(config)
    assert inputs.resume_compatibility(config)["corpus_digest"] == read_mixture(mixed).corpus_digest
    assert (inputs.tokenizer_dir / "tokenizer.json").is_file()


def test_validation_reads_each_part_once_for_any_epochs(tiny_data, mixed):
    inputs = open_tiny(tiny_data, eval_data=str(mixed))
    alone = [open_tiny(tiny_data, eval_data=str(folder)).validation for folder in (tiny_data.train, tiny_data.valid)]
    assert texts(inputs.validation) == texts(alone[0]) + texts(alone[1])


# ---- the split ----

FRACTION = 0.3


def test_the_split_takes_sequences_of_all_parts_from_training(tiny_data, mixed):
    whole = open_tiny(tiny_data, train_data=str(mixed)).train
    inputs = open_tiny(tiny_data, train_data=str(mixed), eval_data=None, eval_fraction=FRACTION)
    assert sorted(texts(inputs.train) + texts(inputs.validation)) == sorted(texts(whole))
    assert inputs.validation.parts[0].num_sequences > 0
    drawn = inputs.order.addresses(0, 3 * inputs.order.num_slots)
    assert set(texts(inputs.train, drawn)) <= set(texts(inputs.train))
    assert not set(map(tuple, drawn.tolist())) & set(
        map(tuple, inputs.validation.first(inputs.validation.num_sequences).tolist())
    )


def test_the_split_of_a_corpus_is_the_same_in_every_run(tiny_data, mixed):
    options = {"eval_data": None, "eval_fraction": FRACTION}
    alone = open_tiny(tiny_data, **options).validation
    another_seed = open_tiny(tiny_data, seed=9, **options).validation
    in_a_mixture = open_tiny(tiny_data, train_data=str(mixed), **options).validation
    assert texts(alone) == texts(another_seed) == texts(in_a_mixture)[: alone.num_sequences]


def test_a_fraction_and_validation_data_exclude_each_other(tiny_data):
    message = error_of(tiny_data, eval_fraction=0.1)
    assert "eval_fraction=0.1" in message and f"eval_data={tiny_data.valid}" in message


def test_a_fraction_of_less_than_a_group_is_refused(tiny_data):
    message = error_of(tiny_data, eval_data=None, eval_fraction=0.001)
    assert f"eval_fraction=0.001 of {tiny_data.train} is not one group of 64 sequences" in message


# ---- documents ----


def test_a_document_mask_masks_documents_from_each_other(tiny_data):
    config = RunConfig(**tiny_run_fields(tiny_data, document_mask=True))
    inputs = open_inputs(config)
    for sequences in (inputs.train, inputs.validation):
        batch = sequences.batch(sequences.first(20))
        assert ((batch.position_ids[:, 1:] == 0) == (batch.input_ids[:, :-1] == inputs.end_token_id)).all()
        assert (batch.position_ids[:, 0] == 0).all() and (batch.position_ids[:, 1:] == 0).any()
    assert inputs.network(config).document_mask


def test_documents_need_an_end_token_that_only_ends_documents(tiny_data, tmp_path):
    folder = tmp_path / "lines"
    shutil.copytree(tiny_data.valid, folder)
    write_manifest(folder, replace(read_manifest(folder), rules=DocumentRules(end_token_rule="fairseq")))
    message = error_of(tiny_data, eval_data=str(folder), document_mask=True)
    assert str(folder) in message and "end_token_rule='fairseq'" in message and "end_token_rule='gpt2'" in message
    assert open_tiny(tiny_data, eval_data=str(folder)).validation is not None


# ---- token ids ----


def test_predictions_of_more_ids_than_the_model_has_are_refused(tiny_data, tmp_path):
    folder = tmp_path / "train"
    shutil.copytree(tiny_data.train, folder)
    manifest = read_manifest(folder)
    with ShardWriter(folder / "predictions", "shard_00000", vocab_size=400) as writer:
        writer.add_document(np.full(manifest.num_tokens, 399))
    facts = {
        "tokenizer_digest": manifest.tokenizer_digest,
        "vocab_size": 400,
        "end_token": "<end>",
        "end_token_id": 299,
    }
    write_manifest(folder / "predictions", make_manifest([writer.shard], **facts))
    message = error_of(tiny_data, train_data=str(folder))
    assert f"{folder / 'predictions'} was made with 400 token ids" in message and "vocab_size=300" in message
