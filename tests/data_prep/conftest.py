"""Tiny tokenizers and the few documents that the tests of data_prep share."""

import pytest

from data_prep.train_tokenizer import save_tokenizer, train_tokenizer
from tests.data_prep.nasty_texts import nasty_texts

DOCUMENTS = ["The first line\nand the second", "naïve café \U0001f600", "a third document"]


@pytest.fixture
def documents() -> list[str]:
    return list(DOCUMENTS)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """Every byte, three merges and the end token as id 259."""
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer(DOCUMENTS, vocab_size=260), folder)
    return folder


@pytest.fixture(scope="session")
def nasty_folder(tmp_path_factory):
    """A tokenizer with 743 merges of nasty texts, among them of whitespace and of parts of characters."""
    folder = tmp_path_factory.mktemp("nasty")
    save_tokenizer(train_tokenizer(nasty_texts(2000, seed=0), vocab_size=1000), folder)
    return folder
