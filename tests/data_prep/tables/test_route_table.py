"""A route table that contradicts itself, or does not belong to a model, is refused with both values."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep.storage.tensor_file import tensor_digest
from data_prep.tables.frequent_tokens import FrequentTokenSplit
from data_prep.tables.route_table import RouteTable, check_belongs

TABLE = RouteTable(
    tables=np.array([[0, 1, 2, 3, 0], [3, 3, 1, 0, 2]], dtype=np.int32)[:, :, None],
    num_experts=4,
    method="balanced",
    seed=7,
    ep_size=2,
    tokenizer_digest="sha256:t",
    corpus_digest="sha256:c",
    lower_bound=1.25,
    load=np.array([[5, 2, 2, 1], [2, 3, 3, 2]]),
)
SPLIT = FrequentTokenSplit(
    split_index=np.array([-1, 0, -1, -1, -1], dtype=np.int32),
    split_table=np.array([[0, 1, -1, 3, 0, 2]], dtype=np.int32),
    position_table=np.array([[2, 3, 2, 3]], dtype=np.int32),
)
BELONGS = {"vocab_size": 5, "num_experts": 4, "tokenizer_digest": "sha256:t"}


def test_imbalance_is_that_of_the_worst_table():
    assert (TABLE.num_tables, TABLE.vocab_size, TABLE.num_hashes, TABLE.num_tokens) == (2, 5, 1, 10)
    assert TABLE.max_over_mean == 2.0  # 5 of 10 tokens on one of 4 experts
    assert TABLE.rank_max_over_mean == 1.4  # 5 + 2 of 10 tokens on one of 2 ranks


def test_the_digest_follows_content_and_shape():
    assert tensor_digest(np.zeros((1, 4, 1), np.int32)) != tensor_digest(np.zeros((2, 2, 1), np.int32))
    assert TABLE.digest == "sha256:4f38afae4ee209f759e35145b6692446be16835a7f50db442871bec41295d70b"


def test_a_table_without_counts_has_no_imbalance():
    table = RouteTable(TABLE.tables, num_experts=4, method="random", seed=0)
    assert (table.load.shape, table.num_tokens) == ((2, 4), 0)
    assert np.isnan(table.max_over_mean) and np.isnan(table.rank_max_over_mean)


def test_choices_count_as_pairs():
    hashes = RouteTable(TABLE.tables.reshape(1, 5, 2), num_experts=4, method="random", seed=0, load=np.full((1, 4), 5))
    assert (hashes.num_choices, hashes.num_hashes, hashes.top_k, hashes.num_tokens) == (2, 2, 1, 10)
    top_2 = replace(
        TABLE, tables=np.array([[[0, 1], [2, 1]]], dtype=np.int32), vocab_size=2, columns="top_k", load=None
    )
    assert (top_2.num_choices, top_2.num_hashes, top_2.top_k) == (2, 1, 2)


def test_columns_of_a_rotation_are_not_choices():
    load = np.full((1, 4), 5)
    rotation = replace(TABLE, tables=TABLE.tables.reshape(1, 5, 2), columns="rotation", load=load)
    assert (rotation.rotation_period, rotation.num_choices, rotation.num_tokens) == (2, 1, 20)
    assert (rotation.num_hashes, rotation.top_k) == (1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tables": TABLE.tables[:, :, 0]}, r"not int32 \[2, 5\]"),
        ({"tables": TABLE.tables.astype(np.int64)}, r"not int64 \[2, 5, 1\]"),
        ({"tables": TABLE.tables - 1}, r"holds -1..2, but its values must be in 0..3"),
        ({"load": TABLE.load[:1]}, r"load has shape \(1, 4\), but 2 tables of 4 experts"),
        ({"load": TABLE.load * [[1], [2]]}, r"load counts \[10, 20\]"),
        ({"columns": "layers"}, "columns='layers' is unknown; it must be hashes, top_k or rotation"),
        ({"columns": "rotation", "hash_key": "next"}, "columns=rotation needs key token, not next"),
        (
            {"tables": np.array([[[0, 1], [2, 2]]] * 2, dtype=np.int32), "columns": "top_k", "vocab_size": 2},
            r"table 0 gives key 1 the experts \[2, 2\], but 2 different ones are needed",
        ),
        ({"hash_key": "previous", "vocab_size": 5}, "has 5 keys, but key previous with vocab_size=5, .* has 6"),
        ({"hash_key": "trigram"}, "key 'trigram' is unknown"),
        ({"split": SPLIT, "hash_key": "next"}, "split tokens need key token and one expert, not next and 1"),
        (
            {"split": replace(SPLIT, split_index=SPLIT.split_index + 1)},
            "split_index holds 0..1",
        ),
        (
            {"split": replace(SPLIT, split_table=SPLIT.split_table - 1)},
            "split_table holds -2..2",
        ),
        ({"split": replace(SPLIT, position_table=SPLIT.position_table + 1)}, "position_table holds 3..4"),
        (
            {"split": replace(SPLIT, split_table=SPLIT.split_table[:, 1:])},
            r"of shapes \[\[5\], \[1, 6\], \[1, 4\]\]",
        ),
        ({"ep_size": 3}, "4 experts cannot be split evenly over ep_size=3 ranks"),
    ],
)
def test_a_table_that_contradicts_itself_cannot_be_made(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TABLE, **change)


def test_a_table_belongs_to_what_it_was_made_for():
    check_belongs(TABLE, **BELONGS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 6}, "has vocab_size=5 but the model has vocab_size=6; build the table with --vocab_size 6"),
        ({"num_experts": 8}, "num_experts=4 but the model has num_experts=8; build the table with --num_experts 8"),
        ({"tokenizer_digest": "sha256:o"}, "made for tokenizer sha256:t but the tokens were made with sha256:o; count"),
    ],
)
def test_a_table_made_for_something_else_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        check_belongs(TABLE, **BELONGS | change)
