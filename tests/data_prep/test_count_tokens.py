"""Counts equal a plain count, belong to their corpus, and refuse tokens that cannot be."""

from collections import Counter

import numpy as np
import pytest

from data_prep import count_tokens
from data_prep.counts import Counts, read_counts, write_counts
from data_prep.token_shards import TokenStream
from tests.data_prep.test_token_shards import SHARDS, STREAM, edit_manifest, write_folder


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


def test_a_token_outside_the_vocabulary_is_named_with_its_shard(tmp_path):
    edit_manifest(write_folder(tmp_path), lambda values: values.update(vocab_size=7))
    with pytest.raises(ValueError, match="shard0.bin holds token id 9, but vocab_size is 7"):
        count_tokens.count_folders([tmp_path])


def test_a_flipped_bit_is_noticed_while_counting(tmp_path):
    path = write_folder(tmp_path) / "shard2.bin"
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="shard2.bin has checksum .* but the manifest says .*: damaged"):
        count_tokens.count_folders([tmp_path])


def test_folders_of_different_tokenizers_are_refused(tmp_path):
    one, two = write_folder(tmp_path / "one"), write_folder(tmp_path / "two", shards=[])
    digest = "sha256:" + "0" * 64
    edit_manifest(two, lambda values: values.update(tokenizer_digest=digest, corpus_digest=empty_corpus(digest)))
    with pytest.raises(ValueError, match=f"one was tokenized with sha256:t but .*two with {digest}"):
        count_tokens.count_folders([one, two])


def empty_corpus(tokenizer_digest):
    from data_prep.manifest import corpus_digest

    return corpus_digest([], tokenizer_digest)


def test_counts_survive_the_file(tmp_path):
    counts = Counts(np.array([3, 0, 2**40]), "sha256:t", "sha256:c")
    write_counts(tmp_path / "counts.safetensors", counts)
    read = read_counts(tmp_path / "counts.safetensors")
    assert read.counts.tolist() == [3, 0, 2**40] and read.counts.dtype == np.int64
    assert (read.tokenizer_digest, read.corpus_digest) == ("sha256:t", "sha256:c")


def test_a_flipped_bit_in_the_counts_is_noticed(tmp_path):
    path = tmp_path / "counts.safetensors"
    write_counts(path, Counts(np.array([3, 0, 4]), "sha256:t", "sha256:c"))
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # 4 becomes 5
    path.write_bytes(content)
    with pytest.raises(ValueError, match="the counts sum to 8 tokens but the file says 7"):
        read_counts(path)
