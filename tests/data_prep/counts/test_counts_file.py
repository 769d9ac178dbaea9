"""Counts survive their file, and a file that is damaged, of another version or contradicts itself is refused."""

import numpy as np
import pytest

from data_prep.counts.counts_file import Counts, read_counts, with_vocab_size, write_counts
from data_prep.storage.tensor_file import read_tensors, write_tensors
from tests.damage import damages

COUNTS = Counts(np.array([3, 0, 2**40]), "sha256:t", "sha256:c")


@pytest.fixture
def path(tmp_path):
    write_counts(tmp_path / "counts.safetensors", COUNTS)
    return tmp_path / "counts.safetensors"


def test_counts_survive_the_file(path):
    read = read_counts(path)
    assert read.counts.tolist() == [3, 0, 2**40] and read.counts.dtype == np.int64
    for name in ("tokenizer_digest", "corpus_digest", "hash_key", "vocab_size", "num_buckets", "context_length"):
        assert getattr(read, name) == getattr(COUNTS, name)


def test_a_thousand_flipped_bits_and_truncations_are_all_noticed(path):
    for _ in damages([path], number=1000):
        with pytest.raises(ValueError, match="counts.safetensors"):
            read_counts(path)
    assert read_counts(path).counts.tolist() == [3, 0, 2**40]


def rewrite(path, *, counts=None, **changes):
    """Write the file again with other content; None removes a metadata field."""
    tensors, metadata = read_tensors(path)
    kept = {name: text for name, text in (metadata | changes).items() if text is not None}
    write_tensors(path, tensors if counts is None else {"counts": counts}, metadata=kept)


def test_counts_that_do_not_sum_to_the_files_total_are_refused(path):
    rewrite(path, counts=np.array([3, 1, 2**40]))
    with pytest.raises(ValueError, match=f"the counts sum to {2**40 + 4} tokens but the file says {2**40 + 3}"):
        read_counts(path)


def test_a_file_of_another_version_is_refused_with_both(path):
    rewrite(path, schema_version="2")
    with pytest.raises(ValueError, match=r"token_counts \(schema_version 2\), but token_counts \(schema_version 1\)"):
        read_counts(path)


def test_a_missing_field_is_named(path):
    rewrite(path, hash_key=None)
    with pytest.raises(ValueError, match="counts.safetensors lacks 'hash_key'; run data_prep.count_tokens again"):
        read_counts(path)


def test_counts_that_do_not_fit_their_key_are_refused():
    with pytest.raises(ValueError, match="key previous has 4 keys, but 3 counts are given"):
        Counts(np.ones(3, dtype=np.int64), "sha256:t", "sha256:c", hash_key="previous", vocab_size=3)


def test_padding_keeps_the_key_of_no_previous_token_last():
    counts = Counts(np.array([5, 4, 3, 2]), "sha256:t", "sha256:c", hash_key="previous", vocab_size=3)
    padded = with_vocab_size(counts, 5)
    assert padded.counts.tolist() == [5, 4, 3, 0, 0, 2] and padded.vocab_size == 5


def test_bigrams_counted_for_another_vocabulary_are_refused():
    counts = Counts(np.array([5, 4]), "sha256:t", "sha256:c", hash_key="bigram", vocab_size=3, num_buckets=2)
    with pytest.raises(ValueError, match="counted for vocab_size=3, not 5; count again with --vocab_size 5"):
        with_vocab_size(counts, 5)


def test_a_vocabulary_smaller_than_the_counts_is_refused():
    with pytest.raises(ValueError, match="--vocab_size 2 is smaller than the 3 token ids that were counted"):
        with_vocab_size(COUNTS, 2)
