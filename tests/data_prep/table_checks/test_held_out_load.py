"""A table's load on held-out tokens equals a plain count, and no batch exceeds the worst possible one."""

import tracemalloc

import numpy as np
import pytest

from data_prep.table_checks.held_out_contexts import Contexts
from data_prep.table_checks.held_out_load import NUM_SAMPLES, batch_loads, piece_loads, whole_load
from data_prep.tables.apply_table import apply_table
from data_prep.tables.assignments import random_uint64
from data_prep.tables.expert_load import rank_load
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
    return Contexts(folder, context_length=context_length, **{"max_tokens": 10**9} | options)


def test_the_whole_load_is_a_plain_count(folder):
    assert whole_load(TABLE, 0, contexts(folder)).tolist() == np.bincount(np.array(STREAM[:8]) % 4).tolist()


@pytest.mark.parametrize(("piece", "expected"), [(4, [STREAM[:4], STREAM[4:8]]), (3, [STREAM[:3], STREAM[4:7]])])
def test_pieces_start_with_their_context(piece, expected):
    experts = np.array(STREAM[:8]).reshape(2, 4, 1) % 4
    loads = piece_loads(experts, piece, num_experts=4)
    assert loads.toarray().tolist() == [np.bincount(np.array(tokens) % 4, minlength=4).tolist() for tokens in expected]


def slow_batch_load(table, data, *, size, ep_size, seed):
    """The figures of the random batches, and of the worst possible one, from the dense loads of all pieces."""
    piece, num_experts = min(size, data.context_length), table.num_experts
    pieces_NE = []
    for tokens, future in data.read():
        for context in apply_table(table, 0, tokens, future=future):
            for start in range(0, data.context_length - piece + 1, piece):
                pieces_NE.append(np.bincount(context[start : start + piece].ravel(), minlength=num_experts))
    pieces_NE, num_pieces = np.array(pieces_NE), size // piece
    draws = random_uint64(NUM_SAMPLES * num_pieces, seed=seed, variant=0) % np.uint64(len(pieces_NE))
    batches_BE = pieces_NE[draws.reshape(num_pieces, NUM_SAMPLES).astype(int)].sum(axis=0)
    figures = [piece * num_pieces]
    for batches, pieces in ((batches_BE, pieces_NE), (rank_load(batches_BE, ep_size), rank_load(pieces_NE, ep_size))):
        imbalance = batches.max(axis=1) * batches.shape[1] / batches[0].sum()
        worst = np.sort(pieces, axis=0)[-num_pieces:].sum(axis=0).max() * pieces.shape[1] / batches[0].sum()
        figures += [imbalance.mean(), np.quantile(imbalance, 0.99), imbalance.max(), worst]
    return figures


@pytest.mark.parametrize("size", [3, 4, 16, 50, 64])
@pytest.mark.parametrize(("num_experts", "num_choices", "ep_size"), [(4, 1, 2), (64, 2, 8), (2, 1, 1), (600, 3, 4)])
def test_sparse_loads_give_the_figures_of_dense_ones(long_folder, monkeypatch, num_experts, num_choices, ep_size, size):
    monkeypatch.setattr("data_prep.table_checks.held_out_contexts.READ_TOKENS", 400)  # many steps
    tables = np.random.Generator(np.random.PCG64(1)).integers(0, num_experts, (1, 10, num_choices), dtype=np.int32)
    table = RouteTable(tables, num_experts=num_experts, method="random", seed=0)
    data = contexts(long_folder, context_length=8)
    [load] = batch_loads(table, 0, data, sizes=[size], ep_size=ep_size, seed=3)
    found = [load.batch_tokens, load.mean, load.p99, load.worst, load.worst_possible]
    found += [load.rank_mean, load.rank_p99, load.rank_worst_possible]
    expected = slow_batch_load(table, data, size=size, ep_size=ep_size, seed=3)
    del expected[7]  # the worst drawn batch of ranks is not reported
    assert found == expected


def test_sizes_are_measured_in_one_pass(long_folder, monkeypatch):
    data, passes = contexts(long_folder), []
    read = data.read
    monkeypatch.setattr(data, "read", lambda: passes.append(1) or read())
    assert len(batch_loads(TABLE, 0, data, sizes=[4, 16, 64], ep_size=2)) == 3 and len(passes) == 1


def test_memory_does_not_grow_with_the_data(tmp_path, monkeypatch):
    """Dense loads of the larger data set would be 67 MB."""
    monkeypatch.setattr("data_prep.table_checks.held_out_contexts.READ_TOKENS", 2**12)
    table = RouteTable(np.arange(4096, dtype=np.int32).reshape(1, -1, 1), num_experts=4096, method="random", seed=0)
    peaks = []
    for num_tokens in (2**13, 2**15):
        tokens = np.random.Generator(np.random.PCG64(0)).integers(0, 4096, num_tokens + 1)
        folder = write_folder(tmp_path / str(num_tokens), shards=[[tokens.tolist()]], vocab_size=4096)
        data = contexts(folder, context_length=16)
        tracemalloc.start()
        batch_loads(table, 0, data, sizes=[64], ep_size=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.1


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


def test_a_batch_of_no_tokens_is_refused(folder):
    with pytest.raises(ValueError, match="--batch_tokens 0 must be at least 1"):
        batch_loads(TABLE, 0, contexts(folder), sizes=[4, 0], ep_size=1)
