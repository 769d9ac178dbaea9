"""Documents are yielded whole, or in pieces whose borders depend on the text alone."""

import random

import pytest

from data_prep.documents import pieces
from data_prep.documents.pieces import cut_documents


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_CHARACTERS", 10)
    monkeypatch.setattr(pieces, "LONGEST_WORD", 40)


def last_space(text):
    return max(text.rfind(" "), 0)


def in_parts(document, generator):
    """Divide a document at random places, as a reader of blocks might."""
    places = sorted(generator.sample(range(len(document) + 1), k=min(5, len(document))))
    cuts = [0, *places, len(document)]
    parts = [document[start:end] for start, end in zip(cuts[:-1], cuts[1:], strict=True)]
    return [(part, number == len(parts) - 1) for number, part in enumerate(parts)]


def test_short_documents_stay_whole_and_empty_ones_are_skipped():
    parts = [("one", True), ("", True), ("tw", False), ("o", True), ("", False), ("", True), ("three", False)]
    assert list(cut_documents(iter(parts), last_space)) == [("one", True), ("two", True), ("three", True)]


def test_long_documents_are_cut_at_the_last_place_and_their_last_piece_is_marked():
    cut = list(cut_documents(iter([("one two three four", True), ("five", True)]), last_space))
    assert cut == [("one two", False), (" three", False), (" four", True), ("five", True)]


def test_a_word_without_a_place_to_cut_stays_whole_up_to_a_limit():
    word = "a" * 35
    assert list(cut_documents(iter([(f"b {word} cc dd", True)]), last_space)) == [
        ("b", False),
        (f" {word} cc", False),
        (" dd", True),
    ]
    assert list(cut_documents(iter([("a" * 45, True)]), last_space)) == [("a" * 40, False), ("a" * 5, True)]


def test_a_document_that_ends_where_it_was_cut_keeps_its_end():
    parts = [("a" * 20, False), ("a" * 21, False), ("", True)]
    assert list(cut_documents(iter(parts), last_space)) == [("a" * 40, False), ("a", True)]


def test_without_a_way_to_cut_documents_stay_whole():
    assert list(cut_documents(iter([("one " * 20, False), ("end", True)]), None)) == [("one " * 20 + "end", True)]


def test_pieces_depend_on_the_text_and_not_on_its_parts():
    generator = random.Random(0)
    for _ in range(300):
        documents = ["".join(generator.choices("abcdef ", k=generator.randrange(120))) for _ in range(3)]
        whole = list(cut_documents(iter([(document, True) for document in documents]), last_space))
        parts = [part for document in documents for part in in_parts(document, generator)]
        assert list(cut_documents(iter(parts), last_space)) == whole
        parts[-1] = parts[-1][0], False  # the file's end ends it
        assert list(cut_documents(iter(parts), last_space)) == whole
        assert "".join(text for text, _ in whole) == "".join(documents)
        assert sum(ends for _, ends in whole) == sum(map(bool, documents))
