"""The plan of an unfinished folder may come from a stranger: what leaves the folder, or is no plan, is refused."""

from dataclasses import asdict

import pytest

from data_prep.documents.document_rules import DocumentRules
from data_prep.shards.manifest import Shard
from data_prep.storage.sealed_json import sealed_json
from data_prep.tokenizing.sources import RawPart
from data_prep.tokenizing.unfinished import (
    RECORD_KIND,
    SPEC_KIND,
    SPEC_NAME,
    FolderSpec,
    finished_shard,
    read_unfinished,
)

SPEC = FolderSpec("sha256:0", "<end>", **asdict(DocumentRules()), block_bytes=4096)
PART = {"source": "raw/a.txt", "identity": {"num_bytes": 3}}


def write_plan(folder, shards):
    (folder / SPEC_NAME).write_bytes(sealed_json({"spec": SPEC.to_json(), "shards": shards}, kind=SPEC_KIND))


@pytest.mark.parametrize("name", ["../victim", "a/b", "/tmp/victim", ".victim", "..", "", 7, None])
def test_a_token_shard_outside_its_folder_is_refused(tmp_path, name):
    write_plan(tmp_path, [["00000-a", [PART]], [name, [PART]]])
    with pytest.raises(ValueError, match=f"{SPEC_NAME} is not the plan of a folder .{name!r} is not the name of a"):
        read_unfinished(tmp_path, SPEC)


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([["a", []]], "token shard a holds no raw text"),
        ([["a", [PART]], ["a", [PART]]], "two token shards have one name"),
        ([["a", [PART | {"colour": 1}]]], "unexpected keyword argument 'colour'"),
        ([["a", [{"source": [], "identity": 1}]]], r"source=\[\] and identity=1 do not name a raw shard"),
        ("text", "is not the plan of a folder"),
        (None, "is not the plan of a folder"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path, shards, message):
    write_plan(tmp_path, shards)
    with pytest.raises(ValueError, match=message):
        read_unfinished(tmp_path, SPEC)


def test_a_plan_is_read_in_its_order(tmp_path):
    write_plan(tmp_path, [["b", [PART]], ["a", [PART, PART]]])
    assert read_unfinished(tmp_path, SPEC) == [("b", [RawPart(**PART)]), ("a", [RawPart(**PART)] * 2)]


def test_the_record_of_another_token_shard_is_not_one_of_this(tmp_path):
    record = {"spec_digest": "0", "shard": asdict(Shard("b", 0, 0, 4096, "0" * 32, "0" * 16)), "sources": []}
    (tmp_path / "a.done.json").write_bytes(sealed_json(record, kind=RECORD_KIND))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_prep.tokenizing.unfinished._check_files", lambda folder, shard: None)
        assert finished_shard(tmp_path, "a", spec_digest="0", parts=[]) is None
