"""The tiny tokenizers and the few documents that the tests of data_prep share."""

import pytest

from data_prep.train_tokenizer import save_tokenizer, train_tokenizer
from tests.data_prep.documents.raw_shards import write_raw_shard
from tests.data_prep.encoding.nasty_texts import nasty_texts

DOCUMENTS = ["The first line\nand the second", "naïve café \U0001f600", "a third document"]
RAW_SUFFIXES = [".txt", ".txt.xz", ".jsonl.zst", ".parquet"]


@pytest.fixture
def documents() -> list[str]:
    return list(DOCUMENTS)


@pytest.fixture
def raw_folder(tmp_path, documents):
    """Four raw shards of different formats; shard i holds the documents from number i % 3 on."""
    for number, suffix in enumerate(RAW_SUFFIXES):
        write_raw_shard(tmp_path / "raw" / f"part{number}{suffix}", documents[number % 3 :])
    return tmp_path / "raw"


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """Every byte, three merges and the end token as id 259."""
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer(DOCUMENTS, vocab_size=260), folder)
    return folder


@pytest.fixture(scope="session")
def nasty_folder(tmp_path_factory):
    """A tokenizer with 743 merges from nasty texts, some of whitespace and some of parts of characters."""
    folder = tmp_path_factory.mktemp("nasty")
    save_tokenizer(train_tokenizer(nasty_texts(2000, seed=0), vocab_size=1000), folder)
    return folder


@pytest.fixture
def workers_for_few_tokens(monkeypatch):
    """Counting starts as many workers as it may, however few tokens there are."""
    monkeypatch.setattr("data_prep.counts.count_mixture.TOKENS_PER_WORKER", 1)
