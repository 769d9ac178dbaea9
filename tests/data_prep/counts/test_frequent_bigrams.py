"""The tokens before frequent ones are counted as a plain loop counts them, by any number of processes and ranks."""

import numpy as np
import pytest

from data_prep.counts.frequent_bigrams import count_frequent_bigrams
from data_prep.processes.mpi_ranks import MpiRanks
from data_prep.shards.mixture import read_mixture, write_mixture
from tests.data_prep.shards.test_token_stream import STREAM, write_folder

FREQUENT = np.array([4, 9])


def plain_count(context_length):
    expected = np.zeros((2, 11), dtype=np.int64)
    for i, token in enumerate(STREAM):
        if token in (4, 9):
            first = i == 0 or (context_length and i % context_length == 0)
            expected[[4, 9].index(token), 10 if first else STREAM[i - 1]] += 1
    return expected


def count(folder, *, tokens=FREQUENT, **options):
    return count_frequent_bigrams(read_mixture(folder), tokens, vocab_size=10, **options)


@pytest.mark.parametrize("context_length", [0, 5])
def test_bigrams_equal_a_plain_count(tmp_path, monkeypatch, context_length):
    monkeypatch.setattr("data_prep.shards.contexts.CHUNK_TOKENS", 5)
    bigrams = count(write_folder(tmp_path), context_length=context_length)
    assert bigrams.counts_FP.tolist() == plain_count(context_length).tolist()
    assert bigrams.tokens_F.tolist() == FREQUENT.tolist()


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_the_counts_of_all_ranks_add_up(tmp_path, monkeypatch, num_ranks):
    monkeypatch.setattr("data_prep.shards.contexts.CHUNK_TOKENS", 2)
    write_folder(tmp_path)
    parts = [count(tmp_path, ranks=MpiRanks(rank, num_ranks)).counts_FP for rank in range(num_ranks)]
    assert sum(parts).tolist() == plain_count(0).tolist()


@pytest.mark.usefixtures("workers_for_few_tokens")
def test_a_part_counts_as_often_as_it_has_epochs(tmp_path):
    write_folder(tmp_path / "one")
    write_mixture(tmp_path / "mixture.yaml", {"one": 3})
    assert count(tmp_path, num_workers=2).counts_FP.tolist() == (3 * plain_count(0)).tolist()


def test_without_frequent_tokens_nothing_is_read(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "shard0.bin").write_bytes(b"\xff" * 10)  # damaged
    bigrams = count(tmp_path, tokens=np.zeros(0, dtype=np.int64))
    assert bigrams.counts_FP.shape == (0, 11)
