"""Unreadable records may be skipped up to a number of them, or up to a share of all documents."""

import argparse
import gzip

import pytest

from data_prep.documents.hub_datasets import DatasetShard
from data_prep.documents.raw_shards import RawFile
from data_prep.tokenizing.bad_records import NO_LIMIT, check_bad_records, limit_per_raw_shard, number_or_share
from data_prep.tokenizing.sources import RawPart, Source
from data_prep.tokenizing.tokenize_folder import tokenize_folder


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


def write_rows(path, num_good, num_bad):
    rows = b'{"text": "good"}\n' * num_good + b"bad\n" * num_bad
    path.write_bytes(gzip.compress(rows) if path.suffix == ".gz" else rows)
    return RawFile(path)


def test_a_share_of_plain_text_bounds_the_records_of_each_raw_shard_by_the_bytes_of_all(tmp_path):
    raw_shard = write_rows(tmp_path / "a.jsonl", 0, 5)  # 20 bytes
    assert limit_per_raw_shard(0.04, [raw_shard]) == 1
    assert limit_per_raw_shard(0.1, [raw_shard] * 3) == 6
    assert limit_per_raw_shard(7, [raw_shard]) == 7


def test_a_share_of_other_text_or_of_unknown_size_has_no_bound_before_the_end(tmp_path):
    plain, compressed = (write_rows(tmp_path / name, 9, 1) for name in ("a.jsonl", "b.jsonl.gz"))
    streamed = DatasetShard("hf:x", 0, 1, None, 0)
    for raw_shards in (
        [plain, compressed],
        [streamed],
        [RawFile(tmp_path / "c.tar")],
        [RawFile(tmp_path / "d.parquet")],
    ):
        assert limit_per_raw_shard(0.1, raw_shards) == NO_LIMIT
        assert limit_per_raw_shard(3, raw_shards) == 3


def test_a_compressed_file_may_have_more_bad_records_than_bytes(tmp_path, tokenizer_folder):
    raw_shard = write_rows(tmp_path / "a.jsonl.gz", 2700, 300)
    assert raw_shard.num_bytes < 300
    options = {"tokenizer": tokenizer_folder, "output": tmp_path / "tokens"}
    with pytest.raises(ValueError, match="300 of 3000 records cannot be read, but --max_bad_records is 0.09:"):
        tokenize_folder([raw_shard.path], max_bad_records=0.09, **options)
    assert tokenize_folder([raw_shard.path], max_bad_records=0.1, **options).num_documents == 2700


def test_the_first_record_above_a_share_names_the_share(tmp_path, tokenizer_folder):
    raw_shard = write_rows(tmp_path / "a.jsonl", 1, 9)
    with pytest.raises(ValueError, match="a.jsonl, line 3 .* after 1 skipped records; .* --max_bad_records above 0.01"):
        tokenize_folder([raw_shard.path], tokenizer=tokenizer_folder, output=tmp_path / "out", max_bad_records=0.01)
