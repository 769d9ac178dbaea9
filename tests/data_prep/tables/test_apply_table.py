"""Looking up many tokens at once equals looking them up one by one, for every key."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep.counts.hash_keys import KEYS, num_keys, route_keys
from data_prep.tables.apply_table import apply_table
from data_prep.tables.frequent_tokens import FrequentTokenSplit
from data_prep.tables.route_table import RouteTable

OPTIONS = {"vocab_size": 6, "num_buckets": 11, "context_length": 4}
TOKENS = np.array([[1, 0, 1, 5], [1, 1, 2, 1], [0, 3, 1, 4]])
FUTURE = np.array([[0, 1, 5, 2], [1, 2, 1, 0], [3, 1, 4, 5]])


def random_table(key, *, num_choices=1, seed=0):
    shape = (2, num_keys(key, **OPTIONS), num_choices)
    tables = np.random.Generator(np.random.PCG64(seed)).integers(0, 5, shape).astype(np.int32)
    return RouteTable(tables, num_experts=5, method="random", seed=seed, hash_key=key, **OPTIONS)


@pytest.mark.parametrize("num_choices", [1, 3])
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("layer", [0, 1])
def test_every_key_is_looked_up(key, layer, num_choices):
    table = random_table(key, num_choices=num_choices)
    experts = apply_table(table, layer, TOKENS, future=FUTURE)
    assert experts.shape == (3, 4, num_choices) and experts.dtype == np.int32
    keys = route_keys(TOKENS, hash_key=key, vocab_size=6, num_buckets=11, future=FUTURE)
    for row in range(3):
        for i in range(4):
            assert experts[row, i].tolist() == table.tables[layer, keys[row, i]].tolist()


@pytest.mark.parametrize("key", KEYS)
def test_contexts_may_follow_each_other_in_one_row(key):
    table = random_table(key)
    in_rows = apply_table(table, 0, TOKENS, future=FUTURE)
    in_one = apply_table(table, 0, TOKENS.reshape(-1), context_length=4, future=FUTURE.reshape(-1))
    assert np.array_equal(in_rows.reshape(-1, 1), in_one)


SPLIT = FrequentTokenSplit(
    split_index=np.array([-1, 0, -1, -1, 1, -1], dtype=np.int32),
    split_table=np.array([[4, -1, 3, 2, 1, 0, -2], [0, 0, 0, 3, 0, 0, 1]], dtype=np.int32),
    position_table=np.array([[0, 1, 2], [4, 3, 2]], dtype=np.int32),
)


def slow_expert(table, tokens, i):
    row = table.split.split_index[tokens[i]]
    if row < 0:
        return int(table.tables[0, tokens[i], 0])
    found = int(table.split.split_table[row, tokens[i - 1] if i else 6])
    return found if found >= 0 else int(table.split.position_table[-found - 1, i % 3])


def test_split_tokens_follow_the_previous_token_or_the_position():
    table = replace(random_table("token"), split=SPLIT)
    expected = [[[slow_expert(table, row, i)] for i in range(4)] for row in TOKENS.tolist()]
    assert apply_table(table, 0, TOKENS).tolist() == expected
    flat = apply_table(table, 0, TOKENS.reshape(-1), context_length=4)
    assert flat.tolist() == sum(expected, [])


def test_the_table_stays_as_it_is():
    table = replace(random_table("token"), split=SPLIT)
    before = table.digest
    apply_table(table, 0, TOKENS)
    assert table.digest == before


@pytest.mark.parametrize(
    ("key", "tokens", "message"),
    [
        ("token", np.array([0, 6]), r"token keys 0..6 are not within the table's 0..5"),
        ("position", np.arange(5), r"position keys 0..4 are not within the table's 0..3"),
    ],
)
def test_keys_outside_the_table_are_refused(key, tokens, message):
    with pytest.raises(ValueError, match=message):
        apply_table(random_table(key), 0, tokens)
