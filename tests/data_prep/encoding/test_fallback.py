"""Texts on which a fast encoder fails are encoded by the reference instead."""

import numpy as np
import pytest

from data_prep.encoding.encoder import join
from data_prep.encoding.fallback import FallbackEncoder
from data_prep.encoding.make_encoder import make_encoder
from data_prep.encoding.plain_bpe import plain_bpe
from data_prep.encoding.reference import ReferenceEncoder
from data_prep.encoding.tokenizer import load_tokenizer


class PanicException(BaseException):
    """Stands for a Rust panic, which Python code does not see as an Exception."""


class Failing:
    """An encoder that returns the id 7 for each text, and raises for "bad"."""

    def __init__(self, error):
        self.error = error

    def encode(self, texts):
        if "bad" in texts:
            raise self.error
        return join([np.array([7], np.uint32)] * len(texts))


def with_fallback(fast, folder):
    tokenizer = load_tokenizer(folder)
    return FallbackEncoder(fast, ReferenceEncoder(tokenizer), bpe=plain_bpe(tokenizer))


@pytest.mark.parametrize("error", [ValueError("too long"), TypeError("surrogates"), PanicException("stack")])
def test_only_the_texts_that_fail_go_to_the_reference(tokenizer_folder, error):
    encoder = with_fallback(Failing(error), tokenizer_folder)
    ids, lengths = encoder.encode(["x", "bad", "y"])
    assert lengths.tolist() == [1, 3, 1]
    assert [ids[0], ids[4]] == [7, 7]
    assert ids[1:4].tolist() == make_encoder(tokenizer_folder, "tokenizers").encode(["bad"])[0].tolist()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_an_error_that_ends_the_program_is_raised(tokenizer_folder, error):
    with pytest.raises(type(error)):
        with_fallback(Failing(error), tokenizer_folder).encode(["bad"])
