"""Counts equal a plain count, belong to their corpus, and refuse tokens that cannot be."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
from safetensors.numpy import save_file

from data_prep import count_tokens
from data_prep.counts.counts_file import Counts, read_counts, write_counts
from data_prep.counts.hash_keys import num_keys, route_keys
from data_prep.processes.mpi_ranks import MpiRanks
from data_prep.shards import contexts
from data_prep.shards.manifest import corpus_digest
from data_prep.shards.token_stream import TokenStream
from tests.damage import damages, flip_bit
from tests.data_prep.shards.test_token_stream import SHARDS, STREAM, edit_manifest, write_folder


def test_counts_equal_a_plain_count(tmp_path, monkeypatch):
    monkeypatch.setattr(count_tokens, "CHUNK_TOKENS", 2)
    counts = count_tokens.count_folders([write_folder(tmp_path)])
    assert {token: n for token, n in enumerate(counts.counts.tolist()) if n} == Counter(STREAM)
    assert (counts.vocab_size, counts.num_tokens) == (10, 12)
    assert counts.corpus_digest == TokenStream(tmp_path).manifest.corpus_digest


def test_folders_are_counted_together(tmp_path):
    one, two = write_folder(tmp_path / "one"), write_folder(tmp_path / "two", shards=SHARDS[:1])
    counts = count_tokens.count_folders([one, two])
    assert counts.counts.tolist() == [0, 2, 2, 2, 1, 1, 1, 1, 0, 7]
    assert counts.corpus_digest not in {count_tokens.count_folders([folder]).corpus_digest for folder in (one, two)}


def test_the_command_writes_counts_beside_the_tokens(tmp_path, capsys):
    assert count_tokens.main([str(write_folder(tmp_path))]) == 0
    assert "12 tokens, 8 of 10 token ids occur" in capsys.readouterr().out
    assert read_counts(tmp_path / "counts.safetensors").num_tokens == 12


def test_several_folders_need_an_output(tmp_path, capsys):
    assert count_tokens.main([str(tmp_path / "one"), str(tmp_path / "two")]) == 2
    assert "2 folders are given; say with --output" in capsys.readouterr().err


def test_a_flipped_bit_is_noticed_while_counting(tmp_path):
    flip_bit(write_folder(tmp_path) / "shard2.bin", 0)
    with pytest.raises(ValueError, match="shard2.bin is damaged: bytes 0..3 have digest"):
        count_tokens.count_folders([tmp_path])


def test_folders_of_different_tokenizers_are_refused(tmp_path):
    one, two = write_folder(tmp_path / "one"), write_folder(tmp_path / "two", shards=[])
    digest = "sha256:" + "0" * 64
    edit_manifest(two, lambda values: values.update(tokenizer_digest=digest, corpus_digest=empty_corpus(digest)))
    with pytest.raises(ValueError, match=f"one was tokenized with sha256:t but .*two with {digest}"):
        count_tokens.count_folders([one, two])


def empty_corpus(tokenizer_digest):
    return corpus_digest([], tokenizer_digest)


@pytest.mark.parametrize("chunk_tokens", [2, 5, 100])
@pytest.mark.parametrize(("key", "context_length"), [("previous", 0), ("previous", 5), ("bigram", 4), ("position", 5)])
def test_keys_are_counted_across_borders_of_shards(tmp_path, monkeypatch, key, context_length, chunk_tokens):
    monkeypatch.setattr(contexts, "CHUNK_TOKENS", chunk_tokens)
    options = {"hash_key": key, "num_buckets": 6 * (key == "bigram"), "context_length": context_length}
    counts = count_tokens.count_folders([write_folder(tmp_path)], **options)
    keys = route_keys(np.array(STREAM), vocab_size=10, **options)
    assert counts.counts.tolist() == np.bincount(keys, minlength=num_keys(vocab_size=10, **options)).tolist()
    assert (counts.hash_key, counts.vocab_size, counts.context_length) == (key, 10, context_length)


def test_the_previous_token_is_unknown_at_the_start_of_every_context(tmp_path):
    folder = write_folder(tmp_path)
    none = [count_tokens.count_folders([folder], hash_key="previous", context_length=n).counts[10] for n in (0, 4, 5)]
    assert none == [1, 3, 3]  # 12 tokens


@pytest.mark.parametrize("key", ["next", "predicted"])
def test_keys_of_the_future_are_counted_as_tokens(tmp_path, key):
    counts = count_tokens.count_folders([write_folder(tmp_path)], hash_key=key)
    assert counts.hash_key == "token" and counts.counts[9] == 5


def test_a_padded_vocabulary_changes_the_keys(tmp_path):
    folder = write_folder(tmp_path)
    counts = count_tokens.count_folders([folder], hash_key="previous", vocab_size=12)
    assert (len(counts.counts), counts.counts[12], counts.vocab_size) == (13, 1, 12)
    with pytest.raises(ValueError, match="--vocab_size 9 is smaller than the tokenizer's 10; give at least 10"):
        count_tokens.count_folders([folder], vocab_size=9)


def test_the_command_writes_counts_of_a_key_under_their_own_name(tmp_path, capsys):
    assert count_tokens.main([str(write_folder(tmp_path)), "--hash_key", "bigram", "--num_buckets", "6"]) == 0
    assert "of 6 bigram keys occur" in capsys.readouterr().out
    assert read_counts(tmp_path / "counts_bigram.safetensors").num_buckets == 6


def test_counts_of_version_1_are_still_read(tmp_path):
    metadata = {"kind": "token_counts", "schema_version": "1", "vocab_size": "2", "num_tokens": "5"}
    metadata |= {"tokenizer_digest": "sha256:t", "corpus_digest": "sha256:c"}
    save_file({"counts": np.array([3, 2])}, tmp_path / "counts", metadata=metadata)
    counts = read_counts(tmp_path / "counts")
    assert (counts.counts.tolist(), counts.hash_key, counts.vocab_size) == ([3, 2], "token", 2)


def test_counts_that_do_not_fit_their_key_are_refused():
    with pytest.raises(ValueError, match="key previous has 4 keys, but 3 counts are given"):
        Counts(np.ones(3, dtype=np.int64), "sha256:t", "sha256:c", hash_key="previous", vocab_size=3)


def test_counts_survive_the_file(tmp_path):
    counts = Counts(np.array([3, 0, 2**40]), "sha256:t", "sha256:c")
    write_counts(tmp_path / "counts.safetensors", counts)
    read = read_counts(tmp_path / "counts.safetensors")
    assert read.counts.tolist() == [3, 0, 2**40] and read.counts.dtype == np.int64
    assert (read.tokenizer_digest, read.corpus_digest) == ("sha256:t", "sha256:c")


def test_a_thousand_flipped_bits_and_truncations_of_counts_are_all_noticed(tmp_path):
    path = tmp_path / "counts.safetensors"
    write_counts(path, Counts(np.array([3, 0, 4]), "sha256:t", "sha256:c"))
    for _ in damages([path], number=1000):
        with pytest.raises(ValueError, match="counts.safetensors"):
            read_counts(path)
    assert read_counts(path).counts.tolist() == [3, 0, 4]


def test_counts_of_version_2_are_still_read(tmp_path):
    metadata = {
        "kind": "token_counts",
        "schema_version": "2",
        "vocab_size": "2",
        "num_tokens": "5",
        "hash_key": "token",
    }
    metadata |= {"tokenizer_digest": "sha256:t", "corpus_digest": "sha256:c", "num_buckets": "0"}
    save_file({"counts": np.array([3, 2])}, tmp_path / "counts", metadata=metadata)
    assert read_counts(tmp_path / "counts").counts.tolist() == [3, 2]
    save_file({"counts": np.array([3, 3])}, tmp_path / "counts", metadata=metadata)
    with pytest.raises(ValueError, match="the counts sum to 6 tokens but the file says 5"):
        read_counts(tmp_path / "counts")


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7])
@pytest.mark.parametrize(("key", "context_length"), [("token", 0), ("previous", 0), ("previous", 5), ("position", 5)])
def test_the_shares_of_all_ranks_add_up(tmp_path, monkeypatch, key, context_length, num_ranks):
    monkeypatch.setattr(contexts, "CHUNK_TOKENS", 2)
    count = partial(count_tokens.count_folders, [write_folder(tmp_path)], hash_key=key, context_length=context_length)
    shares = [count(ranks=MpiRanks(rank, num_ranks)).counts for rank in range(num_ranks)]
    assert sum(shares).tolist() == count().counts.tolist()


def test_the_number_of_processes_does_not_change_a_byte(tmp_path):
    folder = write_folder(tmp_path)
    for num_workers in (1, 2):
        arguments = [str(folder), "--hash_key", "previous", "--workers", str(num_workers), "--output"]
        assert count_tokens.main([*arguments, str(tmp_path / f"counts{num_workers}")]) == 0
    assert (tmp_path / "counts1").read_bytes() == (tmp_path / "counts2").read_bytes()


def test_no_process_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--workers 0 must be at least 1"):
        count_tokens.count_folders([write_folder(tmp_path)], num_workers=0)
