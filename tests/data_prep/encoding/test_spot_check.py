"""A fast backend whose ids differ from those of the tokenizers library is caught."""

import json
import random

import numpy as np
import pytest

from data_prep.encoding import spot_check
from data_prep.encoding.encoder import join
from data_prep.encoding.make_encoder import make_encoder
from data_prep.encoding.plain_bpe import plain_bpe
from data_prep.encoding.reference import ReferenceEncoder
from data_prep.encoding.tokenizer import load_tokenizer
from tests.data_prep.encoding.nasty_texts import nasty_texts

TEXT = "hello " * 20 + "the end"  # the wrong merge comes after the first window


class Changed:
    """An encoder that applies `change` to the ids of each text."""

    def __init__(self, encoder, change):
        self.encoder, self.change = encoder, change

    def encode(self, texts):
        return join([self.change(self.encoder.encode([text])[0]) for text in texts])


class Counting:
    """An encoder that counts the characters it is given."""

    def __init__(self, encoder):
        self.encoder, self.num_characters, self.longest = encoder, 0, 0

    def encode(self, texts):
        self.num_characters += sum(map(len, texts))
        self.longest = max([self.longest, *map(len, texts)])
        return self.encoder.encode(texts)


@pytest.fixture
def compare_with(nasty_folder):
    """Make a spot-checked encoder over a fast backend, or over the reference itself."""
    tokenizer = load_tokenizer(nasty_folder)
    reference = ReferenceEncoder(tokenizer)
    return lambda fast=reference: spot_check.SpotCheckedEncoder(
        fast, reference, backend="fast", bpe=plain_bpe(tokenizer)
    )


@pytest.fixture
def one_merge_less(nasty_folder, tmp_path):
    """The reference, except that "the" stays two tokens."""
    description = json.loads((nasty_folder / "tokenizer.json").read_text())
    merges = description["model"]["merges"]
    merges.remove(next(pair for pair in merges if "".join(pair) == "the"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    return ReferenceEncoder(load_tokenizer(tmp_path))


@pytest.fixture
def compare_everywhere(monkeypatch):
    monkeypatch.setattr(spot_check, "STRIDE_BITS", 2)
    monkeypatch.setattr(spot_check, "STRIDE", 4)


def test_equal_ids_pass_wherever_they_are_compared(compare_with, compare_everywhere):
    texts = nasty_texts(500, seed=6)
    encoder = compare_with()
    for found, expected in zip(encoder.encode(texts), encoder._reference.encode(texts), strict=True):
        assert found.tolist() == expected.tolist()


def test_correct_ids_are_never_compared_as_a_whole(compare_with, compare_everywhere):
    encoder = compare_with()
    encoder._reference = Counting(encoder._reference)
    encoder.encode(["".join(nasty_texts(100, seed=10, surrogates=False))])
    assert 0 < encoder._reference.longest < 1000


def test_one_wrong_merge_is_caught_in_the_first_text(compare_with, one_merge_less):
    with pytest.raises(ValueError, match="--backend fast gives ids .* where the tokenizers library gives"):
        compare_with(one_merge_less).encode(["at the end", "x"])


def test_one_wrong_merge_is_caught_anywhere(compare_with, compare_everywhere, one_merge_less):
    with pytest.raises(ValueError, match="around the text '.*the end'; use --backend tokenizers"):
        compare_with(one_merge_less).encode(["x", TEXT])


def test_both_lists_of_ids_are_shown(compare_with, one_merge_less, nasty_folder):
    (right, _), (wrong, _) = (encoder.encode(["the"]) for encoder in (compare_with(), one_merge_less))
    with pytest.raises(ValueError) as caught:
        compare_with(one_merge_less).encode(["the"])
    assert f"gives ids {wrong.tolist()} where the tokenizers library gives {right.tolist()}" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda ids: ids[:-1],
        lambda ids: ids[1:],
        lambda ids: ids[:0],
        lambda ids: ids[[0, *range(len(ids))]],
        lambda ids: ids[::-1],
        lambda ids: np.append(ids, np.uint32(65)),
        lambda ids: ids + np.uint32(100_000),
    ],
    ids=["last_lost", "first_lost", "all_lost", "first_twice", "turned", "one_more", "unknown"],
)
def test_other_ids_of_the_first_text_are_caught(compare_with, change):
    with pytest.raises(ValueError, match="use --backend tokenizers"):
        compare_with(Changed(compare_with(), change)).encode(["A short text."])


def test_a_later_text_without_ids_is_caught(compare_with):
    lose = Changed(compare_with(), lambda ids: ids if len(ids) > 5 else ids[:0])
    with pytest.raises(ValueError, match=r"gives ids \[\] where"):
        compare_with(lose).encode(["A text that is long enough", "", "short"])


def test_the_sample_of_a_text_does_not_depend_on_its_batch(monkeypatch, nasty_folder):
    monkeypatch.setattr(spot_check, "STRIDE_BITS", 8)
    monkeypatch.setattr(spot_check, "STRIDE", 256)
    encoder, texts = make_encoder(nasty_folder, "tokenizers"), nasty_texts(400, seed=7)
    whole = spot_check.sample(*encoder.encode(texts))
    parts = [spot_check.sample(*encoder.encode(texts[start : start + 50])) for start in range(0, 400, 50)]
    firsts = [part.pop(0) for part in parts]
    assert whole[0] == (0, 0) and firsts == [(0, 0)] * 8
    later = {(number + 50 * batch, position) for batch, part in enumerate(parts) for number, position in part}
    assert set(whole[1:]) == later
    assert len(later) > 20


def test_one_position_per_stride_is_chosen(monkeypatch):
    monkeypatch.setattr(spot_check, "STRIDE_BITS", 10)
    monkeypatch.setattr(spot_check, "STRIDE", 1024)
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 5000, size=400)
    ids = generator.integers(0, 50_000, size=lengths.sum(), dtype=np.uint32)
    expected = lengths.sum() / 1024
    assert abs(len(spot_check.sample(ids, lengths)) - 1 - expected) < 4 * expected**0.5


def test_the_reference_encodes_less_than_a_thousandth_of_the_text(nasty_folder):
    encoder = make_encoder(nasty_folder, "gigatoken")
    encoder._reference = Counting(encoder._reference)
    texts = [
        " ".join(random.Random(seed).choices(["hello", "the", "a", "2024", "..."], k=300_000)) for seed in range(4)
    ]
    for text in texts:
        encoder.encode([text])
    assert 0 < encoder._reference.num_characters < sum(map(len, texts)) / 1000


def test_text_that_cannot_be_cut_is_compared_if_it_is_short(compare_with, one_merge_less):
    compare_with().encode(["\u4e2d" * 10**5])
    with pytest.raises(ValueError, match="use --backend tokenizers"):
        compare_with(one_merge_less).encode(["\u4e2d" * 200 + "\U0001f600the"])
