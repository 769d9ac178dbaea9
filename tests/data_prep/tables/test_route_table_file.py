"""A route table survives its file bit for bit, and a damaged file is refused with both values."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open

from data_prep.counts.counts_file import Counts, write_counts
from data_prep.storage.tensor_file import read_tensors, write_tensors
from data_prep.tables.route_table import RouteTable, check_belongs
from data_prep.tables.route_table_file import read_route_table, write_route_table
from tests.damage import damages
from tests.data_prep.tables.test_route_table import BELONGS, SPLIT, TABLE


@pytest.fixture
def path(tmp_path):
    write_route_table(tmp_path / "table.safetensors", TABLE)
    return tmp_path / "table.safetensors"


def test_a_table_survives_its_file(path):
    read = read_route_table(path)
    assert np.array_equal(read.tables, TABLE.tables) and read.tables.dtype == np.int32
    assert np.array_equal(read.load, TABLE.load) and read.load.dtype == np.int64
    provenance = ("num_experts", "method", "seed", "columns", "ep_size", "hash_key")
    for name in (*provenance, "tokenizer_digest", "corpus_digest", "lower_bound"):
        assert getattr(read, name) == getattr(TABLE, name)
    assert read.digest == TABLE.digest


def test_the_metadata_records_how_the_table_was_made(path):
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        assert file.get_tensor("route_table").shape == (2, 5, 1)
    assert metadata["digest"] == TABLE.digest
    expected = {
        "schema_version": "1",
        "columns": "hashes",
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


def test_tables_that_do_not_have_the_digest_are_refused(path):
    tables = TABLE.tables.copy()
    tables[-1, -1] = 3
    rewrite(path, "route_table", tables)
    with pytest.raises(ValueError, match=f"table.safetensors has digest sha256:.* but says {TABLE.digest}: damaged"):
        read_route_table(path)


def test_an_expert_out_of_range_is_refused(path):
    rewrite(path, "route_table", TABLE.tables + 1)
    with pytest.raises(ValueError, match=r"table.safetensors: route_table holds 1..4, but its values must be in 0..3"):
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


def test_a_file_of_another_version_is_refused_with_both(path):
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, metadata=metadata | {"schema_version": "2"})
    with pytest.raises(ValueError, match=r"route_table \(schema_version 2\), but route_table \(schema_version 1\)"):
        read_route_table(path)


def test_split_tokens_survive_the_file(path):
    write_route_table(path, replace(TABLE, split=SPLIT))
    read = read_route_table(path)
    for name in ("split_index", "split_table", "position_table"):
        assert np.array_equal(getattr(read.split, name), getattr(SPLIT, name))
    assert read.split_digest == SPLIT.digest != replace(SPLIT, split_table=SPLIT.split_table[:, ::-1]).digest


def test_a_split_that_does_not_have_the_digest_is_refused(path):
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


def test_a_counts_file_is_not_a_route_table(tmp_path):
    write_counts(tmp_path / "counts", Counts(np.ones(3, dtype=np.int64), "sha256:t", "sha256:c"))
    with pytest.raises(ValueError, match="holds token_counts .*, but route_table"):
        read_route_table(tmp_path / "counts")


@pytest.mark.parametrize(("columns", "name"), [("hashes", "num_hashes"), ("top_k", "top_k")])
def test_the_meaning_of_the_columns_survives_the_file(path, columns, name):
    tables = np.array([[[0, 1], [2, 3], [1, 0], [3, 2], [0, 2]]], dtype=np.int32)
    table = RouteTable(tables, num_experts=4, method="random", seed=0, columns=columns, load=np.full((1, 4), 5))
    write_route_table(path, table)
    read = read_route_table(path)
    assert (read.columns, getattr(read, name), read.num_tokens, read.digest) == (columns, 2, 10, table.digest)
