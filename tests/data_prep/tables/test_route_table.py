"""A route table survives its file bit for bit, and a wrong or damaged one is refused with both values."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from data_prep.counts.counts_file import Counts, write_counts
from data_prep.storage.tensor_file import read_tensors, write_tensors
from data_prep.tables.route_table import (
    HeavySplit,
    RouteTable,
    check_belongs,
    read_route_table,
    table_digest,
    write_route_table,
)
from tests.damage import damages

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
SPLIT = HeavySplit(
    split_index=np.array([-1, 0, -1, -1, -1], dtype=np.int32),
    split_table=np.array([[0, 1, -1, 3, 0, 2]], dtype=np.int32),
    position_table=np.array([[2, 3, 2, 3]], dtype=np.int32),
)
BELONGS = {"vocab_size": 5, "num_experts": 4, "tokenizer_digest": "sha256:t"}


@pytest.fixture
def path(tmp_path):
    write_route_table(tmp_path / "table.safetensors", TABLE)
    return tmp_path / "table.safetensors"


def test_a_table_survives_its_file(path):
    read = read_route_table(path)
    assert np.array_equal(read.tables, TABLE.tables) and read.tables.dtype == np.int32
    assert np.array_equal(read.load, TABLE.load) and read.load.dtype == np.int64
    for name in (
        "num_experts",
        "method",
        "seed",
        "ep_size",
        "hash_key",
        "tokenizer_digest",
        "corpus_digest",
        "lower_bound",
    ):
        assert getattr(read, name) == getattr(TABLE, name)
    assert read.digest == TABLE.digest


def test_imbalance_is_that_of_the_worst_table():
    assert (TABLE.num_tables, TABLE.vocab_size, TABLE.num_hashes, TABLE.num_tokens) == (2, 5, 1, 10)
    assert TABLE.max_over_mean == 2.0  # 5 of 10 tokens on one of 4 experts
    assert TABLE.rank_max_over_mean == 1.4  # 5 + 2 of 10 tokens on one of 2 ranks


def test_metadata_says_how_the_table_was_made(path):
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        assert file.get_tensor("route_table").shape == (2, 5, 1)
    assert metadata["digest"] == TABLE.digest
    expected = {
        "schema_version": "4",
        "rotation_period": "1",
        "method": "balanced",
        "seed": "7",
        "num_experts": "4",
        "ep_size": "2",
    }
    expected |= {"vocab_size": "5", "num_tables": "2", "num_tokens": "10", "max_over_mean": "2.0", "hash_key": "token"}
    assert metadata.items() >= expected.items()


def test_equal_tables_give_equal_bytes(path, tmp_path):
    write_route_table(tmp_path / "again", replace(TABLE, tables=TABLE.tables.copy()))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_the_digest_follows_content_and_shape():
    assert table_digest(np.zeros((1, 4, 1), np.int32)) != table_digest(np.zeros((2, 2, 1), np.int32))
    assert TABLE.digest == "sha256:4f38afae4ee209f759e35145b6692446be16835a7f50db442871bec41295d70b"


def test_a_table_without_counts_has_no_imbalance():
    table = RouteTable(TABLE.tables, num_experts=4, method="random", seed=0)
    assert (table.load.shape, table.num_tokens) == ((2, 4), 0)
    assert np.isnan(table.max_over_mean) and np.isnan(table.rank_max_over_mean)


@pytest.mark.parametrize("split", [None, SPLIT])
def test_a_thousand_flipped_bits_and_truncations_are_all_noticed(path, split):
    write_route_table(path, replace(TABLE, split=split))
    for _ in damages([path], number=1000):
        with pytest.raises(ValueError, match="table.safetensors"):
            read_route_table(path)
    assert read_route_table(path).digest == TABLE.digest


def rewrite(path, name, tensor):
    """Write the file with another tensor, as a program would that knows its format."""
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors | {name: tensor}, metadata=metadata)


def test_other_tables_than_the_digest_tells_are_refused(path):
    tables = TABLE.tables.copy()
    tables[-1, -1] = 3
    rewrite(path, "route_table", tables)
    with pytest.raises(ValueError, match=f"table.safetensors has digest sha256:.* but says {TABLE.digest}: damaged"):
        read_route_table(path)


def test_an_expert_out_of_range_is_refused(path):
    rewrite(path, "route_table", TABLE.tables + 1)
    with pytest.raises(ValueError, match=r"table.safetensors: route_table holds 1..4, but only 0..3 exist"):
        read_route_table(path)


def test_a_load_of_other_tokens_is_refused(path):
    rewrite(path, "load", TABLE.load + [1, 0, 0, 0])
    with pytest.raises(ValueError, match="has num_tokens 11 but says 10: damaged"):
        read_route_table(path)


def test_a_missing_tensor_is_named(path):
    tensors, metadata = read_tensors(path)
    write_tensors(path, {"route_table": tensors["route_table"]}, metadata=metadata)
    with pytest.raises(ValueError, match="table.safetensors: 'load'; make it again"):
        read_route_table(path)


def test_a_file_of_version_1_is_still_read(path):
    tensors, metadata = read_tensors(path)
    later = ("num_buckets", "context_length", "top_k", "split_digest", "rotation_period")
    metadata = {name: text for name, text in metadata.items() if name not in later} | {"schema_version": "1"}
    write_tensors(path, tensors, metadata=metadata)
    read = read_route_table(path)
    assert np.array_equal(read.tables, TABLE.tables) and np.array_equal(read.load, TABLE.load)
    assert (read.hash_key, read.vocab_size, read.top_k, read.rotation_period, read.split) == ("token", 5, 1, 1, None)


def test_a_file_of_version_2_is_still_read(path):
    hashes = RouteTable(TABLE.tables.reshape(1, 5, 2), num_experts=4, method="random", seed=0, load=np.full((1, 4), 5))
    write_route_table(path, hashes)
    tensors, metadata = read_tensors(path)
    del metadata["rotation_period"]
    write_tensors(path, tensors, metadata=metadata | {"schema_version": "2"})
    read = read_route_table(path)
    assert (read.rotation_period, read.num_hashes, read.num_tokens, read.digest) == (1, 2, 10, hashes.digest)


def test_a_file_of_version_3_is_still_read(path):
    tensors, metadata = read_tensors(path)
    del metadata["file_xxh3"]
    save_file(tensors, path, metadata=metadata | {"schema_version": "3"})
    read = read_route_table(path)
    assert (read.digest, read.num_tokens, read.rotation_period) == (TABLE.digest, 10, 1)


def test_a_table_that_lost_the_digest_of_its_file_is_refused(path):
    tensors, metadata = read_tensors(path)
    del metadata["file_xxh3"]
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ValueError, match="table.safetensors is damaged: schema_version 4 needs file_xxh3"):
        read_route_table(path)


def test_a_file_of_a_later_version_is_refused(path):
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, metadata=metadata | {"schema_version": "5"})
    with pytest.raises(
        ValueError, match=r"holds route_table \(schema_version 5\), but .* \(schema_version 1 or 2 or 3 or 4\)"
    ):
        read_route_table(path)


def test_split_tokens_survive_the_file(path):
    write_route_table(path, replace(TABLE, split=SPLIT))
    read = read_route_table(path)
    for name in ("split_index", "split_table", "position_table"):
        assert np.array_equal(getattr(read.split, name), getattr(SPLIT, name))
    assert read.split_digest == SPLIT.digest != replace(SPLIT, split_table=SPLIT.split_table[:, ::-1]).digest


def test_another_split_than_the_digest_tells_is_refused(path):
    write_route_table(path, replace(TABLE, split=SPLIT))
    rewrite(path, "split_table", np.array([[1, 1, -1, 3, 0, 2]], dtype=np.int32))
    with pytest.raises(ValueError, match="has split_digest sha256:.* but says sha256:.*: damaged"):
        read_route_table(path)


def test_a_key_other_than_the_token_survives_the_file(path):
    table = replace(TABLE, hash_key="bigram", vocab_size=9, num_buckets=5, context_length=3)
    write_route_table(path, table)
    read = read_route_table(path)
    assert (read.hash_key, read.vocab_size, read.num_buckets, read.context_length) == ("bigram", 9, 5, 3)
    check_belongs(read, **BELONGS | {"vocab_size": 9})


def test_choices_count_as_pairs():
    hashes = RouteTable(TABLE.tables.reshape(1, 5, 2), num_experts=4, method="random", seed=0, load=np.full((1, 4), 5))
    assert (hashes.num_choices, hashes.num_hashes, hashes.top_k, hashes.num_tokens) == (2, 2, 1, 10)
    top_2 = replace(TABLE, tables=np.array([[[0, 1], [2, 1]]], dtype=np.int32), vocab_size=2, top_k=2, load=None)
    assert (top_2.num_choices, top_2.num_hashes, top_2.top_k) == (2, 1, 2)


def test_a_counts_file_is_no_route_table(tmp_path):
    write_counts(tmp_path / "counts", Counts(np.ones(3, dtype=np.int64), "sha256:t", "sha256:c"))
    with pytest.raises(ValueError, match="holds token_counts .*, but route_table"):
        read_route_table(tmp_path / "counts")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tables": TABLE.tables[:, :, 0]}, r"not int32 \[2, 5\]"),
        ({"tables": TABLE.tables.astype(np.int64)}, r"not int64 \[2, 5, 1\]"),
        ({"tables": TABLE.tables - 1}, r"holds -1..2, but only 0..3 exist"),
        ({"load": TABLE.load[:1]}, r"load has shape \(1, 4\), but 2 tables of 4 experts"),
        ({"load": TABLE.load * [[1], [2]]}, r"load counts \[10, 20\]"),
        ({"top_k": 2}, "gives 1 experts to a key, but top_k=2"),
        (
            {"tables": np.array([[[0, 1], [2, 2]]] * 2, dtype=np.int32), "top_k": 2, "vocab_size": 2},
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
        ({"tokenizer_digest": "sha256:o"}, "made for tokenizer sha256:t but the tokens are of sha256:o; count these"),
    ],
)
def test_a_table_made_for_something_else_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        check_belongs(TABLE, **BELONGS | change)
