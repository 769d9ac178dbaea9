"""Counts equal a plain count, belong to their corpus, and do not depend on the number of processes."""

from collections import Counter
from functools import partial

import numpy as np
import pytest

from data_prep.counts.count_folders import count_folders
from data_prep.counts.hash_keys import num_keys, route_keys
from data_prep.processes.mpi_ranks import MpiRanks
from data_prep.shards import contexts
from data_prep.shards.manifest import corpus_digest
from data_prep.shards.token_stream import TokenStream
from tests.damage import flip_bit
from tests.data_prep.shards.test_token_stream import SHARDS, STREAM, edit_manifest, write_folder


def test_counts_equal_a_plain_count(tmp_path, monkeypatch):
    monkeypatch.setattr(contexts, "CHUNK_TOKENS", 2)
    counts = count_folders([write_folder(tmp_path)])
    assert {token: n for token, n in enumerate(counts.counts.tolist()) if n} == Counter(STREAM)
    assert (counts.vocab_size, counts.num_tokens) == (10, 12)
    assert counts.corpus_digest == TokenStream(tmp_path).manifest.corpus_digest


def test_folders_are_counted_together(tmp_path):
    one, two = write_folder(tmp_path / "one"), write_folder(tmp_path / "two", shards=SHARDS[:1])
    counts = count_folders([one, two])
    assert counts.counts.tolist() == [0, 2, 2, 2, 1, 1, 1, 1, 0, 7]
    assert counts.corpus_digest not in {count_folders([folder]).corpus_digest for folder in (one, two)}


def test_a_flipped_bit_is_noticed_while_counting(tmp_path):
    flip_bit(write_folder(tmp_path) / "shard2.bin", 0)
    with pytest.raises(ValueError, match="shard2.bin is damaged: bytes 0..3 have digest"):
        count_folders([tmp_path])


def test_folders_of_different_tokenizers_are_refused(tmp_path):
    one, two = write_folder(tmp_path / "one"), write_folder(tmp_path / "two", shards=[])
    digest = "sha256:" + "0" * 64
    edit_manifest(two, lambda values: values.update(tokenizer_digest=digest, corpus_digest=empty_corpus(digest)))
    with pytest.raises(ValueError, match=f"one was tokenized with sha256:t but .*two with {digest}"):
        count_folders([one, two])


def empty_corpus(tokenizer_digest):
    return corpus_digest([], tokenizer_digest)


@pytest.mark.parametrize("chunk_tokens", [2, 5, 100])
@pytest.mark.parametrize(("key", "context_length"), [("previous", 0), ("previous", 5), ("bigram", 4), ("position", 5)])
def test_keys_are_counted_across_borders_of_shards(tmp_path, monkeypatch, key, context_length, chunk_tokens):
    monkeypatch.setattr(contexts, "CHUNK_TOKENS", chunk_tokens)
    options = {"hash_key": key, "num_buckets": 6 * (key == "bigram"), "context_length": context_length}
    counts = count_folders([write_folder(tmp_path)], **options)
    keys = route_keys(np.array(STREAM), vocab_size=10, **options)
    assert counts.counts.tolist() == np.bincount(keys, minlength=num_keys(vocab_size=10, **options)).tolist()
    assert (counts.hash_key, counts.vocab_size, counts.context_length) == (key, 10, context_length)


def test_the_previous_token_is_unknown_at_the_start_of_every_context(tmp_path):
    folder = write_folder(tmp_path)
    none = [count_folders([folder], hash_key="previous", context_length=n).counts[10] for n in (0, 4, 5)]
    assert none == [1, 3, 3]  # 12 tokens


@pytest.mark.parametrize("key", ["next", "predicted"])
def test_keys_of_the_future_are_counted_as_tokens(tmp_path, key):
    counts = count_folders([write_folder(tmp_path)], hash_key=key)
    assert counts.hash_key == "token" and counts.counts[9] == 5


def test_a_padded_vocabulary_changes_the_keys(tmp_path):
    folder = write_folder(tmp_path)
    counts = count_folders([folder], hash_key="previous", vocab_size=12)
    assert (len(counts.counts), counts.counts[12], counts.vocab_size) == (13, 1, 12)
    with pytest.raises(ValueError, match="--vocab_size 9 is smaller than the tokenizer's 10; give at least 10"):
        count_folders([folder], vocab_size=9)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7])
@pytest.mark.parametrize(("key", "context_length"), [("token", 0), ("previous", 0), ("previous", 5), ("position", 5)])
def test_the_shares_of_all_ranks_add_up(tmp_path, monkeypatch, key, context_length, num_ranks):
    monkeypatch.setattr(contexts, "CHUNK_TOKENS", 2)
    count = partial(count_folders, [write_folder(tmp_path)], hash_key=key, context_length=context_length)
    shares = [count(ranks=MpiRanks(rank, num_ranks)).counts for rank in range(num_ranks)]
    assert sum(shares).tolist() == count().counts.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": 0}, "--workers 0 must be at least 1"),
        (
            {"hash_key": "previous", "context_length": -5},
            "--context_length -5 must be at least 0; 0 is one long context",
        ),
        ({"vocab_size": 10**9}, r"vocab_size=1,000,000,000 is not in 1..16,777,216; give the model's --vocab_size"),
        (
            {"hash_key": "bigram", "num_buckets": 10**13},
            "counting 10,000,000,000,000 cells with 1 processes takes .* GiB .* lower --num_buckets",
        ),
    ],
)
def test_numbers_that_mean_nothing_are_refused_before_a_token_is_read(tmp_path, options, message):
    flip_bit(write_folder(tmp_path) / "shard2.bin", 0)  # reading would end with another error
    with pytest.raises(ValueError, match=message):
        count_folders([tmp_path], **options)
