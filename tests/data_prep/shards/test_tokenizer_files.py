"""Only a tokenizer's own files travel, as plain files, and none of them makes a reader run code."""

import json
from pathlib import Path

import pytest

from data_prep.shards.tokenizer_files import (
    TokenizerFile,
    check_tokenizer_files,
    copy_tokenizer,
    read_tokenizer_files,
)


@pytest.fixture
def source(tmp_path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 8}')
    return folder


def test_only_known_files_travel(source):
    (source / "modeling_hash_gpt.py").write_text("print('code')")
    (source / "notes.txt").symlink_to("/etc/hostname")
    assert sorted(read_tokenizer_files(source)) == ["tokenizer.json", "tokenizer_config.json"]


@pytest.mark.parametrize("name", ["auto_map", "tokenizer_auto_map"])
def test_a_map_to_code_is_dropped_and_the_rest_stays(source, name):
    settings = {"model_max_length": 8, name: {"AutoTokenizer": ["elsewhere--code.Tokenizer", None]}}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    assert json.loads(read_tokenizer_files(source)["tokenizer_config.json"]) == {"model_max_length": 8}


def test_harmless_settings_keep_their_bytes(source):
    (source / "tokenizer_config.json").write_text('{ "model_max_length":8 }')
    assert read_tokenizer_files(source)["tokenizer_config.json"] == b'{ "model_max_length":8 }'


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000])
def test_settings_that_are_no_json_object_are_refused(source, content):
    (source / "tokenizer_config.json").write_text(content)
    with pytest.raises(ValueError, match="tokenizer_config.json"):
        read_tokenizer_files(source)


def test_a_link_out_of_the_folder_is_refused(source, tmp_path):
    (tmp_path / "secret").write_text("key")
    (source / "merges.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="merges.txt is a link to .*secret, outside its folder"):
        read_tokenizer_files(source)


def test_a_link_to_nothing_and_a_folder_are_refused(source):
    (source / "merges.txt").symlink_to("nothing")
    with pytest.raises(ValueError, match="merges.txt is not a plain file"):
        read_tokenizer_files(source)
    (source / "merges.txt").unlink()
    (source / "merges.txt").mkdir()
    with pytest.raises(ValueError, match="merges.txt is not a plain file"):
        read_tokenizer_files(source)


def test_links_of_the_hub_cache_are_followed(source, tmp_path):
    revision = tmp_path / "models--a--b" / "snapshots" / "0123"
    (tmp_path / "models--a--b" / "blobs").mkdir(parents=True)
    revision.mkdir(parents=True)
    (tmp_path / "models--a--b" / "blobs" / "ab").write_text("{}")
    (revision / "tokenizer.json").symlink_to("../../blobs/ab")
    assert read_tokenizer_files(revision) == {"tokenizer.json": b"{}"}


def test_a_file_that_no_tokenizer_needs_is_refused_by_its_size(source, monkeypatch):
    monkeypatch.setattr("data_prep.shards.tokenizer_files._MAX_BYTES", 1)
    with pytest.raises(ValueError, match="tokenizer.json has 2 bytes, but .* at most 1"):
        read_tokenizer_files(source)


def test_a_copy_is_what_its_description_says(source, tmp_path):
    written = copy_tokenizer(source, tmp_path)
    assert [file.name for file in written] == ["tokenizer.json", "tokenizer_config.json"]
    check_tokenizer_files(tmp_path, written)
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("[]")
    with pytest.raises(ValueError, match="tokenizer.json has 2 bytes and digest"):
        check_tokenizer_files(tmp_path, written)


def test_a_copy_removes_the_files_of_an_earlier_tokenizer(source, tmp_path):
    copy_tokenizer(source, tmp_path)
    (source / "tokenizer_config.json").unlink()
    assert [file.name for file in copy_tokenizer(source, tmp_path)] == ["tokenizer.json"]
    assert not (tmp_path / "tokenizer" / "tokenizer_config.json").exists()


def test_a_copy_refuses_a_folder_with_other_files(source, tmp_path):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "code.py").touch()
    with pytest.raises(ValueError, match="code.py is not one of the tokenizer's files"):
        copy_tokenizer(source, tmp_path)


def test_a_link_in_the_place_of_a_file_is_reported(source, tmp_path):
    written = copy_tokenizer(source, tmp_path)
    path = tmp_path / "tokenizer" / "tokenizer.json"
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ValueError, match="tokenizer.json is a link"):
        check_tokenizer_files(tmp_path, written)


def test_a_description_of_another_file_is_refused():
    with pytest.raises(ValueError, match="'../modeling.py' is not one of a tokenizer's files"):
        TokenizerFile("../modeling.py", 1, "0")
