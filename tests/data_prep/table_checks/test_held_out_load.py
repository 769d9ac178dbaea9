"""A table's load on held-out tokens equals a plain count, and no batch exceeds the worst possible one."""

import numpy as np
import pytest

from data_prep.shards.token_stream import TokenStream
from data_prep.table_checks.held_out_load import Contexts, batch_loads, load_of_pieces, whole_load
from data_prep.tables.route_table import RouteTable
from tests.data_prep.shards.test_token_stream import STREAM, write_folder

CONTEXT_LENGTH = 4
TABLE = RouteTable(
    np.arange(10, dtype=np.int32).reshape(1, 10, 1) % 4, num_experts=4, method="round_robin", seed=0, ep_size=2,
    tokenizer_digest="sha256:t",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """12 tokens: two contexts of 4 and the token after them, three left."""
    return write_folder(tmp_path / "tokens")


def write_long_folder(folder):
    """1024 contexts of 4 and the token after them."""
    tokens = np.random.Generator(np.random.PCG64(0)).integers(0, 9, 4097) ** 2 // 9
    return write_folder(folder, shards=[[tokens.tolist()]])


@pytest.fixture
def long_folder(tmp_path):
    return write_long_folder(tmp_path / "long")


def contexts(folder, *, context_length=CONTEXT_LENGTH, **options):
    return Contexts(TokenStream(folder), context_length=context_length, **{"max_tokens": 10**9} | options)


def test_contexts_are_those_of_training(folder):
    [(tokens, future)] = contexts(folder).read()
    assert tokens.tolist() == [STREAM[:4], STREAM[4:8]]
    assert future.tolist() == [STREAM[1:5], STREAM[5:9]]


def test_a_large_data_set_is_measured_at_evenly_spaced_contexts(long_folder):
    some = contexts(long_folder, max_tokens=100)
    assert (some.num_contexts, some.num_tokens) == (25, 100)
    stream = TokenStream(long_folder)
    [(tokens, _)] = some.read()
    assert tokens[1].tolist() == stream.read(4096 // 4 // 25 * 4, 4).tolist()  # 1024 contexts, every 40th or 41st


def test_predictions_must_be_of_the_same_tokens(folder, long_folder):
    [(_, future)] = contexts(folder, predicted=TokenStream(folder)).read()
    assert future.tolist() == [STREAM[:4], STREAM[4:8]]
    with pytest.raises(ValueError, match=r"long predicts 4097 tokens but .*tokens has 12"):
        contexts(folder, predicted=TokenStream(long_folder))


def test_too_few_tokens_for_one_context_are_refused(folder):
    with pytest.raises(ValueError, match="holds 12 tokens, not one context of 12 and the token after it"):
        contexts(folder, context_length=12)


def test_the_whole_load_is_a_plain_count(folder):
    assert whole_load(TABLE, 0, contexts(folder)).tolist() == np.bincount(np.array(STREAM[:8]) % 4).tolist()


@pytest.mark.parametrize(("piece", "expected"), [(4, [STREAM[:4], STREAM[4:8]]), (3, [STREAM[:3], STREAM[4:7]])])
def test_pieces_start_with_their_context(folder, piece, expected):
    loads = load_of_pieces(TABLE, 0, contexts(folder), piece=piece)
    assert loads.tolist() == [np.bincount(np.array(tokens) % 4, minlength=4).tolist() for tokens in expected]


def test_the_worst_possible_batch_bounds_every_batch(long_folder):
    [small, large] = batch_loads(TABLE, 0, contexts(long_folder), sizes=[64, 16], ep_size=2)
    for load in (small, large):
        assert 1 < load.mean <= load.p99 <= load.worst <= load.worst_possible <= 4
        assert 1 < load.rank_mean <= load.rank_p99 <= load.rank_worst_possible <= 2
    assert (small.batch_tokens, large.batch_tokens) == (16, 64) and large.mean < small.mean


def test_the_worst_possible_batch_is_made_of_the_fullest_contexts(folder):
    [load] = batch_loads(TABLE, 0, contexts(folder), sizes=[8], ep_size=2)
    # token 9 is expert 1: twice in each context, with token 1 in the first: 5 of 8 pairs
    assert load.worst_possible == np.bincount(np.array(STREAM[:8]) % 4).max() * 4 / 8


def test_batches_larger_than_the_data_are_skipped(folder):
    assert [load.batch_tokens for load in batch_loads(TABLE, 0, contexts(folder), sizes=[4, 9999], ep_size=1)] == [4]
