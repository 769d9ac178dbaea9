"""A study builds each of its tables once, by the arguments of its file, and names the table that cannot be built."""

import json

import numpy as np
import pytest

from data_prep.counts.counts_file import read_counts
from data_prep.shards.token_stream import TokenStream
from data_prep.tables.make_route_table import TableOptions, make_route_table
from data_prep.tables.route_table_file import read_route_table
from launch.study.recipes import read_study
from launch.study.tables import build_tables
from tests.tiny_run import NUM_EXPERTS
from tests.tiny_study import write_study


@pytest.fixture
def build(tmp_path, tiny_data):
    """Build the table `balanced` of a study with these arguments; (paths of the tables built, output folder)."""

    def build(**arguments):
        folder = tmp_path / "recipes"
        if not folder.exists():
            write_study(folder, tiny_data, "dense", "balanced", tables={"balanced": arguments})
        study, output = read_study(folder, may_differ=[]), tmp_path / "study"
        return build_tables(study, "balanced", output, seed=3, models={}), output

    return build


def test_a_table_is_made_of_the_studys_counts_by_its_arguments(build):
    [path], output = build(method="random")
    counts = read_counts(output / "counts" / "token.safetensors")
    expected = make_route_table(counts, TableOptions(NUM_EXPERTS, method="random", seed=3))
    assert np.array_equal(read_route_table(path).tables, expected.tables)


def test_a_table_has_a_record_of_its_origin_and_its_balance(build):
    [path], output = build()
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["built_from"]["method"] == "balanced" and record["built_from"]["seed"] == 3
    assert any("predicted imbalance of experts" in line for line in record["report"])


def test_a_table_that_exists_is_not_built_again(build):
    [path], _ = build()
    assert build() == ([], path.parents[2])


def test_frequent_tokens_of_the_training_data_are_split(build, tiny_data):
    [path], _ = build(split_frequent_tokens=True, split_threshold=0.05)
    table = read_route_table(path)
    assert table.split is not None and table.num_tokens == TokenStream(tiny_data.train).num_tokens


def test_a_table_that_cannot_be_built_is_named_with_the_reason(build):
    with pytest.raises(ValueError, match="table balanced could not be built: --num_hashes 0 and --top_k 1 must be"):
        build(num_hashes=0)
