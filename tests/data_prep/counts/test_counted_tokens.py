"""Counts are refused beside the tokens of another corpus, and their tokens are found: a folder or a mixture."""

import numpy as np
import pytest

from data_prep.counts.counted_tokens import check_counted_tokens, open_counted_tokens
from data_prep.counts.counts_file import Counts
from data_prep.shards.manifest import read_manifest
from data_prep.shards.mixture import read_mixture, write_mixture
from tests.data_prep.shards.test_token_stream import write_folder

OTHER = Counts(np.ones(10, dtype=np.int64), "sha256:t", "sha256:c")


def counts_of(corpus):
    return Counts(np.ones(10, dtype=np.int64), corpus.tokenizer_digest, corpus.corpus_digest)


def test_counts_of_another_corpus_than_the_tokens_beside_them_are_refused(tmp_path):
    digest = read_manifest(write_folder(tmp_path)).corpus_digest
    with pytest.raises(ValueError, match=f"counts has corpus_digest sha256:c but .*/manifest.json says {digest}"):
        check_counted_tokens(OTHER, tmp_path / "counts")
    check_counted_tokens(OTHER, tmp_path / "counts", allow_mismatch=["corpus_digest"])
    check_counted_tokens(counts_of(read_manifest(tmp_path)), tmp_path / "counts")


def test_counts_may_lie_alone_unless_their_tokens_are_named(tmp_path):
    check_counted_tokens(OTHER, tmp_path / "counts")
    with pytest.raises(ValueError, match="nowhere holds neither manifest.json nor mixture.yaml; give the counted"):
        check_counted_tokens(OTHER, tmp_path / "counts", tokens=tmp_path / "nowhere")


def test_counts_of_a_mixture_belong_to_it(tmp_path):
    write_folder(tmp_path / "one")
    write_mixture(tmp_path / "mixture.yaml", {"one": 2})
    counts = counts_of(read_mixture(tmp_path))
    check_counted_tokens(counts, tmp_path / "counts")
    write_mixture(tmp_path / "mixture.yaml", {"one": 3})
    with pytest.raises(ValueError, match="counts has corpus_digest"):
        check_counted_tokens(counts, tmp_path / "counts")


def test_the_counted_tokens_lie_beside_the_counts_or_are_named(tmp_path):
    write_folder(tmp_path / "one")
    write_mixture(tmp_path / "mixture.yaml", {"one": 2})
    assert open_counted_tokens(tmp_path / "one" / "counts").epochs == [1]
    assert open_counted_tokens(tmp_path / "counts").epochs == [2]
    for tokens in (tmp_path, tmp_path / "mixture.yaml"):
        assert open_counted_tokens("elsewhere/counts", tokens=tokens).epochs == [2]
    with pytest.raises(ValueError, match="nowhere holds neither manifest.json nor mixture.yaml; give the counted"):
        open_counted_tokens(tmp_path / "counts", tokens=tmp_path / "nowhere")
