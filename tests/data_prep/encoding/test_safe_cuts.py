"""Pieces that are cut at safe places have, concatenated, the ids of the whole text."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from data_prep.encoding.make_encoder import BACKENDS, make_encoder
from data_prep.encoding.safe_cuts import WINDOW, can_be_cut, first_cut, last_cut
from data_prep.encoding.tokenizer import load_tokenizer
from tests.data_prep.encoding.nasty_texts import nasty_texts


def pieces_of(text):
    """Cut at every safe place, the last place first."""
    pieces = []
    while cut := last_cut(text):
        pieces.append(text[cut:])
        text = text[:cut]
    return [text, *reversed(pieces)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_texts", [1000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_ids_of_all_pieces_are_those_of_the_whole(nasty_folder, backend, num_texts):
    encoder = make_encoder(nasty_folder, backend)
    texts = nasty_texts(num_texts, seed=5)
    pieces = [pieces_of(text) for text in texts]
    assert sum(map(len, pieces)) > 2 * len(texts)
    apart, _ = encoder.encode([piece for parts in pieces for piece in parts])
    assert np.array_equal(apart, encoder.encode(texts)[0])


@pytest.mark.parametrize(
    "text, cut",
    [
        *[("", 0), ("a", 0), (" ", 0), ("\n a", 0), ("a b", 1), ("a b c", 3), ("a\nb", 1), ("ab ", 2)],
        *[("a  b", 1), ("a \n b", 1), ("a\t b", 0), ("a\xa0 b", 0), ("a\x1c b", 0), ("a\tb c", 3), ("a\x85\nb", 0)],
    ],
)
def test_a_cut_lies_between_another_character_and_whitespace(text, cut):
    assert last_cut(text) == cut


@pytest.mark.parametrize("num_after", [0, 1, WINDOW - 3, WINDOW - 2, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW])
def test_a_cut_is_found_across_windows(num_after):
    assert last_cut("ab" + " " + "c" * num_after) == 2
    assert last_cut("ab" + " " * (num_after + 1)) == 2


@pytest.mark.parametrize("text, cut", [("", 0), ("abc", 3), ("ab cd ef", 2), (" a b", 2), ("a\t b c", 4)])
def test_the_first_cut_is_the_end_of_the_text_if_there_is_none(text, cut):
    assert first_cut(text) == cut


def test_text_for_a_tokenizer_of_gpt2s_kind_can_be_cut(nasty_folder):
    assert can_be_cut(load_tokenizer(nasty_folder))


@pytest.mark.parametrize(
    "part, change",
    [
        ("normalizer", {"type": "NFC"}),
        ("pre_tokenizer", {"type": "Whitespace"}),
        ("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}),
    ],
)
def test_text_for_a_tokenizer_that_splits_words_otherwise_cannot_be_cut(nasty_folder, part, change):
    description = json.loads((nasty_folder / "tokenizer.json").read_text()) | {part: change}
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.encode_special_tokens = True
    assert not can_be_cut(tokenizer)


def test_text_for_random_merges_cannot_be_cut(nasty_folder):
    tokenizer = load_tokenizer(nasty_folder)
    tokenizer.model.dropout = 0.1
    assert not can_be_cut(tokenizer)


def test_a_tokenizer_that_finds_special_tokens_in_text_cannot(nasty_folder):
    assert not can_be_cut(Tokenizer.from_file(str(nasty_folder / "tokenizer.json")))
