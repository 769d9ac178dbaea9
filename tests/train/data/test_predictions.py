"""Predictions stand beside their tokens, one for each, and look at no later token."""

import numpy as np
import pytest
import torch

from data_prep.shards.token_stream import TokenStream
from models.configuration_hash_gpt import HashGPTConfig
from models.modeling_hash_gpt import HashGPTForCausalLM
from tests.damage import flip_bit
from tests.tiny_run import make_tiny_data
from train.data.predictions import write_predictions


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    return make_tiny_data(tmp_path_factory.mktemp("predictions")).valid


def baseline(vocab_size=300):
    torch.manual_seed(0)
    return HashGPTForCausalLM(
        HashGPTConfig(
            vocab_size=vocab_size,
            max_position_embeddings=16,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()


def test_each_token_has_the_guess_of_its_window(valid):
    stream, model = TokenStream(valid), baseline()
    predicted = TokenStream(write_predictions(model, valid, batch_size=3))
    assert predicted.num_tokens == stream.num_tokens
    for start in (0, 16, stream.num_tokens // 16 * 16):  # the last window is shorter
        tokens = stream.read(start, min(16, stream.num_tokens - start))
        guesses = model(torch.from_numpy(tokens)[None]).logits[0].argmax(-1).numpy()
        assert np.array_equal(predicted.read(start, len(tokens)), guesses)


def test_a_baseline_of_separate_documents_guesses_from_each_token_s_own(valid):
    stream, model = TokenStream(valid), baseline()
    model.config.document_mask = True
    predicted = TokenStream(write_predictions(model, valid, batch_size=3))
    ends = np.flatnonzero(stream.read(0, stream.num_tokens - 16) == stream.manifest.end_token_id)
    end = next(end for end in ends.tolist() if 2 < end % 16 < 13)
    start, border = end // 16 * 16, end % 16 + 1
    tokens, found = stream.read(start, 16), predicted.read(start, 16)
    for document in (slice(border), slice(border, 16)):
        guesses = model(torch.from_numpy(tokens[document])[None]).logits[0].argmax(-1)
        assert found[document].tolist() == guesses.tolist()


def test_a_flipped_bit_of_a_prediction_is_not_read(valid):
    predictions = write_predictions(baseline(), valid)
    flip_bit(predictions / "shard_00000.bin", 3)
    with pytest.raises(ValueError, match="predictions/shard_00000.bin is damaged: bytes 0.."):
        TokenStream(predictions).read(0, 1)


def test_a_baseline_of_a_smaller_vocabulary_is_refused(valid):
    with pytest.raises(ValueError, match="the model knows 200 tokens but .* was made with 300"):
        write_predictions(baseline(vocab_size=200), valid)


def test_an_interrupted_prediction_leaves_none(valid, monkeypatch):
    write_predictions(baseline(), valid)
    monkeypatch.setattr("train.data.predictions._predict", lambda *_, **__: iter([1 / 0 for _ in "x"]))
    with pytest.raises(ZeroDivisionError):
        write_predictions(baseline(), valid)
    assert not (valid / "predictions" / "manifest.json").exists()
