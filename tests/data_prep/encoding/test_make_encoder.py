"""Every backend gives the ids of the tokenizers library, or its error says why it cannot."""

import json
import re
import sys

import numpy as np
import pytest

from data_prep.encoding import make_encoder as make_encoder_module
from data_prep.encoding.make_encoder import BACKENDS, Choice, choose_backend, make_encoder
from data_prep.encoding.tokenizer import load_tokenizer, without_surrogates
from tests.data_prep.encoding.nasty_texts import nasty_texts
from tests.data_prep.encoding.tokenizer_kinds import write_tokenizer

FAST = [backend for backend in BACKENDS if backend != "tokenizers"]
LONG_TEXTS = {
    "spaces": " " * 10**6,
    "spaces_between_words": "a" + " " * 10**6 + "b",
    "letters": "abc" * 10**5,
    "signs": "-" * 10**5,
    "no_word": "\u6587" * 10**5,
    "numbers": "0123456789" * 10**4,
    "nul": "\0" * 10**5,
}


def as_lists(result):
    """Return the ids of each text as a list, from the arrays that an encoder returns."""
    ids, lengths = result
    assert (ids.dtype, lengths.dtype) == (np.uint32, np.int64)
    assert lengths.sum() == len(ids)
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])] if len(lengths) else []


def expected_ids(folder, texts):
    tokenizer = load_tokenizer(folder)
    return [tokenizer.encode(without_surrogates(text), add_special_tokens=False).ids for text in texts]


@pytest.mark.parametrize("backend", BACKENDS)
def test_ids_are_those_of_each_text_encoded_alone(nasty_folder, backend):
    texts = nasty_texts(2000, seed=1)
    assert as_lists(make_encoder(nasty_folder, backend).encode(texts)) == expected_ids(nasty_folder, texts)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_threads_give_the_same_ids(nasty_folder, backend):
    texts = nasty_texts(200, seed=2)
    encoder = make_encoder(nasty_folder, backend, num_threads=2)
    assert as_lists(encoder.encode(texts)) == expected_ids(nasty_folder, texts)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("texts", [[], [""], ["", "a", ""], ["\ud800"], ["a\0b", "x\ud800", "\ud83d\ude00"]], ids=ascii)
def test_empty_texts_and_surrogates_have_their_places(nasty_folder, backend, texts):
    assert as_lists(make_encoder(nasty_folder, backend).encode(texts)) == expected_ids(nasty_folder, texts)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_literal_end_token_is_text(nasty_folder, backend):
    ids, _ = make_encoder(nasty_folder, backend).encode(["a<|endoftext|>b", "<|endoftext|>"])
    end_id = load_tokenizer(nasty_folder).token_to_id("<|endoftext|>")
    assert end_id not in ids


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_long_words_and_long_whitespace_are_encoded(nasty_folder, name):
    texts = ["before", LONG_TEXTS[name], "after"]
    expected = expected_ids(nasty_folder, texts)
    for backend in FAST:
        assert as_lists(make_encoder(nasty_folder, backend).encode(texts)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 110))
def test_ids_are_equal_on_many_texts(nasty_folder, seed):
    texts = nasty_texts(50_000, seed=seed)
    expected = as_lists(make_encoder(nasty_folder, "tokenizers").encode(texts))
    for backend in FAST:
        assert as_lists(make_encoder(nasty_folder, backend).encode(texts)) == expected


@pytest.mark.parametrize("backend", FAST)
def test_holes_in_the_ids_are_kept(nasty_folder, tmp_path, backend):
    description = json.loads((nasty_folder / "tokenizer.json").read_text())
    vocabulary = {token: id_ + 5 * (id_ > 99) for token, id_ in description["model"]["vocab"].items()}
    description["model"]["vocab"] = vocabulary | {"never made": 102}
    description["added_tokens"][0]["id"] += 5
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    texts = nasty_texts(200, seed=3)
    assert as_lists(make_encoder(tmp_path, backend).encode(texts)) == expected_ids(tmp_path, texts)


@pytest.mark.parametrize("backend", FAST)
def test_vocabulary_and_merges_are_enough(nasty_folder, tmp_path, backend):
    load_tokenizer(nasty_folder).model.save(str(tmp_path))
    texts = nasty_texts(100, seed=4)
    assert as_lists(make_encoder(tmp_path, backend).encode(texts)) == expected_ids(tmp_path, texts)


@pytest.mark.parametrize("backend", FAST)
def test_a_backend_that_is_not_installed_is_named(tokenizer_folder, backend, monkeypatch):
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(ValueError, match=f"--backend {backend} cannot be imported .*: pip install {backend}"):
        make_encoder(tokenizer_folder, backend)


def test_a_tokenizer_unlike_gpt2s_is_refused_with_the_backend_to_use(tokenizer_folder, tmp_path):
    description = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    description["normalizer"] = {"type": "NFC"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="has a normalizer, NFC; use --backend tokenizers"):
        make_encoder(tmp_path, "gigatoken")
    assert make_encoder(tmp_path, "tokenizers").encode(["a"])[1].tolist() == [1]


def test_an_unknown_backend_is_refused(tokenizer_folder):
    with pytest.raises(ValueError, match="--backend fast is unknown; choose one of tokenizers, gigatoken"):
        make_encoder(tokenizer_folder, "fast")


def test_gigatoken_is_chosen_for_a_tokenizer_of_gpt2s_kind(nasty_folder):
    choice = choose_backend(nasty_folder)
    assert choice.backend == "gigatoken"
    assert str(choice).startswith("backend: gigatoken (gives ") and "like the tokenizers library" in choice.reason


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("qwen", "one in .* has a normalizer, NFC"), ("llama3", "splits words by the pre-tokenizer")],
)
def test_other_tokenizers_get_the_tokenizers_library_with_the_reason(tmp_path, kind, reason):
    choice = choose_backend(write_tokenizer(tmp_path, kind))
    assert choice.backend == "tokenizers"
    assert choice.reason.startswith("gigatoken is faster, but: ") and re.search(reason, choice.reason)


def test_a_missing_library_is_told(nasty_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    choice = choose_backend(nasty_folder)
    assert choice.backend == "tokenizers" and "pip install gigatoken" in choice.reason


def test_a_backend_that_fails_the_cross_check_is_not_chosen(nasty_folder, monkeypatch):
    class Wrong:
        def encode(self, texts):
            return np.zeros(len(texts), np.uint32), np.ones(len(texts), np.int64)

    monkeypatch.setattr(make_encoder_module, "make_encoder", lambda folder, backend: Wrong())
    choice = choose_backend(nasty_folder)
    assert choice == Choice(
        "tokenizers",
        "gigatoken is faster, but: it gives other ids than the tokenizers library in a text of the vocabulary",
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wanted_backend_is_taken(nasty_folder, backend):
    assert choose_backend(nasty_folder, backend) == Choice(backend, "as asked")


def test_a_wanted_backend_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--backend gigatoken supports only tokenizers of GPT-2's kind"):
        choose_backend(write_tokenizer(tmp_path, "qwen"), "gigatoken")
