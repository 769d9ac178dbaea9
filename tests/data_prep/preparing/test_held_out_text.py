"""Text is trained on and held out if both read the same file, data set, or members of an archive."""

import pytest

from data_prep.documents.hub_datasets import DatasetShard
from data_prep.documents.raw_shards import RawFile
from data_prep.preparing.held_out_text import check_held_out


@pytest.mark.parametrize(("trained", "held_out"), [((), ("v/*",)), (("v/*",), ()), (("v/*",), ("v/*",))])
def test_members_of_one_archive_that_both_read(tmp_path, trained, held_out):
    path = tmp_path / "all.tar"
    path.touch()
    with pytest.raises(ValueError, match="all.tar is in a, which is trained on, and in b, which is held out"):
        check_held_out({"a": [RawFile(path, include=trained)]}, {"b": [RawFile(path, include=held_out)]})
    check_held_out({"a": [RawFile(path, include=("t/*",))]}, {"b": [RawFile(path, include=("v/*",))]})


def test_splits_of_one_data_set_differ():
    train, valid = (DatasetShard(f"hf:x?split={split}", 0, 1, None, 0) for split in ("train", "valid"))
    check_held_out({"a": [train]}, {"b": [valid]})
    with pytest.raises(ValueError, match="hf:x.split=train, shard 0 of 1 and 1 more raw shards are in a"):
        check_held_out({"a": [train, train]}, {"b": [train]})
