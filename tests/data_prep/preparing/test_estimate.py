"""A sample predicts the tokens of a corpus, in every format; a file that is read whole is predicted exactly."""

import random

import pytest

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.raw_shards import find_raw_shards, read_documents
from data_prep.preparing import estimate
from data_prep.preparing.estimate import duration, estimate_part, size
from data_prep.tokenizing.shard_job import ShardTokenizer
from tests.data_prep.documents.raw_shards import write_raw_shard

RULES = DocumentRules()
WORDS = [f"{letter}{number}" for letter in "abcxyz" for number in range(500)]


@pytest.fixture(scope="module")
def tokenizer(nasty_folder):
    return ShardTokenizer(nasty_folder, backend="tokenizers", num_threads=1)


def num_tokens(shards, tokenizer):
    documents = [document for shard in shards for document in read_documents(shard)]
    return len(tokenizer.encoder.encode(documents)[0]) + len(documents), len(documents)


@pytest.mark.parametrize("suffix", [".txt", ".txt.xz", ".jsonl.zst", ".parquet"])
def test_the_start_of_a_file_predicts_the_whole(tmp_path, tokenizer, monkeypatch, suffix):
    monkeypatch.setattr(estimate, "SAMPLED_CHARACTERS", 2**18)
    choose = random.Random(0).choices
    texts = [" ".join(choose(WORDS, k=150)) for _ in range(1000)]
    shards = find_raw_shards([write_raw_shard(tmp_path / f"text{suffix}", texts)])
    found = estimate_part("part", shards, RULES, tokenizer)
    expected, num_documents = num_tokens(shards, tokenizer)
    assert found.num_bytes == shards[0].num_bytes and found.num_files == 1
    assert 0.88 < found.num_tokens / expected < 1.12
    assert 0.88 < found.num_documents / num_documents < 1.12


def test_small_files_are_predicted_exactly(tmp_path, tokenizer, documents):
    for suffix in (".txt", ".jsonl.gz", ".parquet"):
        write_raw_shard(tmp_path / f"text{suffix}", documents)
    shards = find_raw_shards([tmp_path])
    found = estimate_part("part", shards, RULES, tokenizer)
    assert (found.num_tokens, found.num_documents) == num_tokens(shards, tokenizer)
    assert found.disk_bytes(1000) == found.num_tokens * 2 + found.num_documents * 20
    assert found.disk_bytes(100_000) == found.num_tokens * 4 + found.num_documents * 20


def test_only_some_of_many_files_are_read(tmp_path, tokenizer, documents, monkeypatch):
    for number in range(100):
        write_raw_shard(tmp_path / f"text{number}.txt", documents)
    shards = find_raw_shards([tmp_path])
    opened = []
    monkeypatch.setattr(estimate, "_sample", lambda shard, *_: opened.append(shard.name) or (10, 5, 1))
    assert estimate_part("part", shards, RULES, tokenizer).num_files == 100
    assert len(set(opened)) == estimate.SAMPLED_FILES


def test_numbers_are_read_at_a_glance():
    assert [size(n) for n in (0, 999, 1000, 450e9)] == ["0 B", "999 B", "1 kB", "450 GB"]
    assert [duration(n) for n in (0.1, 90, 150, 9000)] == ["1 seconds", "90 seconds", "2.5 minutes", "2.5 hours"]
