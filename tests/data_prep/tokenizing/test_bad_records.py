"""Unreadable records may be skipped up to a number of them, or up to a share of all documents."""

import argparse

import pytest

from data_prep.tokenizing.bad_records import check_bad_records, limit_per_raw_shard, number_or_share
from data_prep.tokenizing.sources import RawPart, Source


def source(num_documents, num_empty, skipped):
    return Source("shard", RawPart("raw/a.jsonl", {}), "", num_documents, num_empty, 9, 0, skipped)


def test_a_number_is_records_and_a_fraction_is_a_share():
    assert [number_or_share(text) for text in ("0", "3", "1e3", "1e-6", "0.25")] == [0, 3, 1000, 1e-6, 0.25]
    for text in ("-1", "1.5", "nan", "inf", "few"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is neither a number of records nor a share"):
            number_or_share(text)


@pytest.mark.parametrize("most", [2, 0.2])  # 2 of 10
def test_as_many_as_allowed_are_skipped(most):
    check_bad_records([source(5, 1, ("line 2 is bad",)), source(2, 0, ("line 1 is bad",))], most)


@pytest.mark.parametrize("most", [1, 0.19])
def test_one_more_is_an_error_that_names_them(most):
    sources = [source(5, 1, ("line 2 is bad",)), source(2, 0, ("line 1 is bad",))]
    message = f"2 of 10 records cannot be read, but --max_bad_records is {most}: raw/a.jsonl, line 2 is bad; raw"
    with pytest.raises(ValueError, match=message):
        check_bad_records(sources, most)


def test_a_share_bounds_the_records_of_each_raw_shard_by_the_bytes_of_all():
    assert limit_per_raw_shard(1e-6, num_bytes=450 * 10**9) == 450_000
    assert limit_per_raw_shard(1e-6, num_bytes=10) == 1
    assert limit_per_raw_shard(7, num_bytes=10) == 7
