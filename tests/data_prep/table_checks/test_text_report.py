"""The reports name the shape of a table, its imbalance and its lower bound, as predicted and as measured."""

import numpy as np
import pytest

from data_prep.counts.counts_file import Counts
from data_prep.counts.drift import Drift
from data_prep.table_checks.held_out_contexts import Contexts
from data_prep.table_checks.table_check import measure_table
from data_prep.table_checks.text_report import check_report, table_report
from tests.data_prep.shards.test_token_stream import write_folder
from tests.data_prep.table_checks.test_held_out_load import TABLE
from tests.data_prep.tables.test_make_route_table import make

COUNTS = Counts(np.array([6, 2, 1, 3]), "sha256:t", "sha256:c")


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, "1 x 4 keys -> 4 experts"),
        ({"num_tables": 3, "num_hashes": 2}, "3 x 4 keys -> 4 experts, 2 hashes"),
        ({"top_k": 2}, "1 x 4 keys -> 4 experts, top 2"),
        ({"rotation_period": 3}, "1 x 4 keys -> 4 experts, rotation period 3"),
    ],
)
def test_the_first_line_is_the_shape_of_the_table(options, shape):
    [first, *_] = table_report(make(COUNTS, 4, **options), COUNTS).splitlines()
    assert first == f"balanced table of key token: {shape}"


def test_a_prediction_that_a_person_can_check():
    # 12 tokens: 6 on expert 0, twice the mean of 3 and all of its rank; 3 + 2 + 1 on the other rank
    report = table_report(make(COUNTS, 4, ep_size=2), COUNTS, most_frequent="','").splitlines()
    assert report[1:] == [
        "predicted imbalance of experts, max/mean: 2.0000 (lower bound 2.0000)",
        "predicted imbalance of ranks, max/mean over ep_size=2: 1.0000",
        "most frequent key: token 0 ',', 50.00% of 12 tokens",
    ]


@pytest.mark.parametrize(
    ("drift", "line"),
    [
        (None, "drift: not measured; give the counted corpus with --against"),
        (
            Drift(0.25, 0.125, ((7, 0.5, 0.25),)),
            "drift: 25.00% of the tokens differ, 12.500% have a key",
        ),
    ],
)
def test_a_measurement_names_prediction_batches_and_drift(tmp_path, drift, line):
    contexts = Contexts(write_folder(tmp_path), context_length=4, max_tokens=100)
    counts = Counts(np.ones(10, dtype=np.int64), "sha256:t", "sha256:c")
    check = measure_table(TABLE, contexts, counts, name="plain", ep_size=2, layer=0, batch_sizes=[4, 8])
    report = check_report(check, drift)
    assert report.startswith("plain: 1 x 10 keys -> 4 experts\n") and "8 tokens in contexts of 4" in report
    assert "(lower bound 1.0000, no prediction), of 2 ranks" in report
    assert line in report and "\n       8 " in report
