"""All backends agree on which characters are letters, numbers, whitespace and signs, except those new in Unicode 17."""

import numpy as np
import pytest
from tokenizers import models

from data_prep.encoding.make_encoder import BACKENDS, make_encoder
from data_prep.encoding.plain_bpe import byte_alphabet
from data_prep.encoding.tokenizer import END_TOKEN, byte_level
from data_prep.encoding.unicode_17 import NEW, RANGES, ids_of_parts
from data_prep.train_tokenizer import save_tokenizer

FAST = [backend for backend in BACKENDS if backend != "tokenizers"]
BORDERS = [code for first, last in RANGES for code in (first - 1, first, (first + last) // 2, last, last + 1)]
ALL = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]


@pytest.fixture(scope="session")
def kinds_folder(tmp_path_factory):
    """A tokenizer that merges "a", "1" and "." with the first byte of the next character if both are in one word."""
    spelling = {byte: character for character, byte in byte_alphabet().items()}
    merges = [(sign, spelling[byte]) for sign in "a1." for byte in range(0xC2, 0xF5)]
    vocabulary = {token: id_ for id_, token in enumerate([*byte_alphabet(), *map("".join, merges)])}
    tokenizer = byte_level(models.BPE(vocabulary, merges))
    tokenizer.add_special_tokens([END_TOKEN])
    folder = tmp_path_factory.mktemp("kinds")
    save_tokenizer(tokenizer, folder)
    return folder


def texts_of(codes):
    """Return texts whose ids tell whether each character is a letter, a number, a sign, or none of them."""
    return ["a{0}\n1{0}\n.{0}\n".format(chr(code)) for code in codes]


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("codes", [BORDERS, ALL[::97], pytest.param(ALL, marks=pytest.mark.slow)], ids=len)
def test_characters_are_of_the_same_kind(kinds_folder, backend, codes):
    texts = texts_of(codes)
    (ids, lengths), (expected, expected_lengths) = (
        make_encoder(kinds_folder, name).encode(texts) for name in (backend, "tokenizers")
    )
    assert np.array_equal(lengths, expected_lengths) and np.array_equal(ids, expected)


def test_only_gigatoken_classifies_a_letter_of_unicode_17_as_a_letter(kinds_folder):
    # If this fails, the libraries agree: delete unicode_17.py, or update it to the letters of the next version.
    text = "a\U000323b0"
    alone = make_encoder(kinds_folder, "gigatoken")._fast._fast.encode([text])[0]
    assert len(alone) < len(make_encoder(kinds_folder, "tokenizers").encode([text])[0])


def test_only_texts_with_such_characters_are_found():
    assert NEW.search("a\U00033479")
    assert not NEW.search("a \u201c\u4e2d\U0001f600 \U0003347a")


def test_tokens_that_can_hold_their_first_byte_are_known():
    parts = [b"\xf0", b"a\xf0", b"x\xf0\xb3", b"x\xf0\xb3\x91", "x\U00033479y".encode()]
    others = [b"a", b"\xf0\x9f", b"\xc2", "\u4e2d".encode(), b"\xb3\x91", "\U0003347a".encode()]
    ids = {token: id_ for id_, token in enumerate([*parts, *others])}
    assert ids_of_parts(ids).tolist() == [True] * len(parts) + [False] * len(others)
