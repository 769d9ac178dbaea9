"""The fastest backend is chosen if its ids are those of the tokenizers library; the reason is told."""

import re
import sys

import numpy as np
import pytest

from data_prep.encoding import choose_backend as module
from data_prep.encoding.choose_backend import Choice, choose_backend
from data_prep.encoding.make_encoder import BACKENDS
from tests.data_prep.encoding.tokenizer_kinds import write_tokenizer


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

    monkeypatch.setattr(module, "make_encoder", lambda folder, backend: Wrong())
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
