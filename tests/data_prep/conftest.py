"""A tiny tokenizer and the few documents that the tests of data_prep share."""

import pytest

from data_prep.train_tokenizer import save_tokenizer, train_tokenizer

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
