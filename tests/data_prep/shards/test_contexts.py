"""Every token of a stream is read once, in whole contexts or with the token before it."""

import pytest

from data_prep.shards.contexts import read_contexts
from data_prep.shards.token_stream import TokenStream
from tests.data_prep.shards.test_token_stream import STREAM, write_folder


def read(folder, **options):
    stream = TokenStream(write_folder(folder))
    return [(tokens.tolist(), lead) for tokens, lead in read_contexts(stream, **options)]


def test_pieces_are_whole_contexts_but_for_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.shards.contexts.CHUNK_TOKENS", 11)  # two contexts of 5
    assert read(tmp_path, context_length=5) == [(STREAM[:10], 0), (STREAM[10:], 0)]


def test_without_a_context_length_pieces_begin_with_the_token_before_them(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.shards.contexts.CHUNK_TOKENS", 5)
    assert read(tmp_path) == [(STREAM[:5], 0), (STREAM[4:10], 1), (STREAM[9:], 1)]


@pytest.mark.parametrize("num_shares", [1, 2, 3, 5])
@pytest.mark.parametrize("context_length", [0, 1])
def test_all_shares_together_are_the_stream(tmp_path, monkeypatch, context_length, num_shares):
    monkeypatch.setattr("data_prep.shards.contexts.CHUNK_TOKENS", 4)
    options = {"context_length": context_length, "num_shares": num_shares}
    pieces = [piece for share in range(num_shares) for piece in read(tmp_path, share=share, **options)]
    assert sum([tokens[lead:] for tokens, lead in pieces], []) == STREAM
