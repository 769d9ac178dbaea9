"""Tables are measured on the contexts of training, evenly spaced over an epoch of a folder or mixture."""

from collections import Counter

import pytest

from data_prep.shards.mixture import write_mixture
from data_prep.shards.token_stream import TokenStream
from tests.data_prep.shards.test_token_stream import STREAM, write_folder
from tests.data_prep.table_checks.test_held_out_load import contexts, write_long_folder


@pytest.fixture
def folder(tmp_path):
    """12 tokens: two contexts of 4 and the token after them, three left."""
    return write_folder(tmp_path / "tokens")


@pytest.fixture
def long_folder(tmp_path):
    return write_long_folder(tmp_path / "long")


def first_tokens(data):
    return Counter(tuple(row) for tokens, _ in data.read() for row in tokens.tolist())


def test_contexts_are_those_of_training(folder):
    [(tokens, future)] = contexts(folder).read()
    assert tokens.tolist() == [STREAM[:4], STREAM[4:8]]
    assert future.tolist() == [STREAM[1:5], STREAM[5:9]]


def test_a_large_data_set_is_measured_at_evenly_spaced_contexts(long_folder):
    some = contexts(long_folder, max_tokens=100)
    assert (some.num_contexts, some.num_tokens) == (25, 100)
    stream = TokenStream(long_folder)
    [(tokens, _)] = some.read()
    assert tokens[1].tolist() == stream.read(4096 // 4 // 25 * 4, 4).tolist()  # 1024 contexts, every 40th or 41st


def test_predictions_must_be_of_the_same_tokens(folder, long_folder):
    [(_, future)] = contexts(folder, predicted=folder).read()
    assert future.tolist() == [STREAM[:4], STREAM[4:8]]
    with pytest.raises(ValueError, match=r"long predicts 4097 tokens but .*tokens has 12"):
        contexts(folder, predicted=long_folder)


def test_too_few_tokens_for_one_context_are_refused(folder):
    with pytest.raises(ValueError, match="tokens holds 12 tokens, not one context of 12 and the token after it"):
        contexts(folder, context_length=12)


@pytest.mark.parametrize("options", [{"context_length": -5}, {"max_tokens": 0}])
def test_fewer_than_one_token_is_refused(folder, options):
    with pytest.raises(ValueError, match=r"--context_length .* and --max_tokens .* must be at least 1"):
        contexts(folder, **options)


def test_a_sequence_of_a_mixture_counts_as_often_as_its_part_has_epochs(tmp_path, folder):
    write_folder(tmp_path / "other", shards=[[[5, 6, 7, 8, 1, 1, 1, 1, 9]]])
    write_folder(tmp_path / "unused", shards=[[[0] * 9]])
    write_mixture(tmp_path / "mixture.yaml", {"tokens": 3, "other": "1/2", "unused": 0})
    data = contexts(tmp_path)
    assert first_tokens(data) == {(1, 2, 9, 3): 3, (9, 4, 9, 9): 3, (5, 6, 7, 8): 1}
    assert data.num_tokens == 28 and data.data == str(tmp_path)


def test_a_mixture_of_one_epoch_each_is_all_its_sequences_and_next_tokens(tmp_path, folder, long_folder):
    write_mixture(tmp_path / "mixture.yaml", {"long": 1, "tokens": 1})
    assert first_tokens(contexts(tmp_path)) == first_tokens(contexts(folder)) + first_tokens(contexts(long_folder))
    [(tokens, future)] = contexts(tmp_path).read()
    assert (tokens[:, 1:] == future[:, :-1]).all()


def test_every_part_of_a_mixture_needs_its_predictions(tmp_path, folder):
    write_folder(tmp_path / "other")
    write_mixture(tmp_path / "mixture.yaml", {"tokens": 1, "other": 1})
    assert contexts(tmp_path, predicted=tmp_path).num_contexts == 4
    with pytest.raises(ValueError, match="--predicted has 1 parts but the data has 2; predict every part"):
        contexts(tmp_path, predicted=folder)
