"""Raw shards are found in files, folders and globs, each once and in order, and none is lost because of its name."""

import pytest

from data_prep.documents.raw_shards import find_raw_shards
from tests.data_prep.documents.raw_shards import write_raw_shard


def test_inputs_are_sorted_by_relative_path_and_found_once(tmp_path, documents):
    for name in ("b/2.txt", "b/10.jsonl.zst", "a.parquet", ".hidden/c.txt"):
        write_raw_shard(tmp_path / name, documents)
    found = find_raw_shards([tmp_path / "b" / "2.txt", tmp_path])
    assert [shard.path.relative_to(tmp_path).as_posix() for shard in found] == [
        "b/2.txt",
        "a.parquet",
        "b/10.jsonl.zst",
    ]


def test_a_missing_input_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.txt does not exist"):
        find_raw_shards([tmp_path / "nowhere.txt"])


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no files; give a folder with raw shards"):
        find_raw_shards([tmp_path])


def test_an_unknown_suffix_is_named_with_the_supported_ones(tmp_path):
    (tmp_path / "notes.docx").write_text("text")
    with pytest.raises(
        ValueError, match=r"notes.docx has no supported suffix \(.txt, .jsonl, .parquet, .tar, alone or with"
    ):
        find_raw_shards([tmp_path])


def test_a_glob_finds_files_in_order_and_is_refused_if_it_matches_none(tmp_path):
    for name in ("b/2.txt", "b/1.txt", "a/3.txt", "a/4.jsonl"):
        write_raw_shard(tmp_path / name, ["one"])
    found = find_raw_shards([f"{tmp_path}/**/*.txt"])
    assert [shard.source for shard in found] == ["a/3.txt", "b/1.txt", "b/2.txt"]
    with pytest.raises(ValueError, match=r"\*.xz matches no file"):
        find_raw_shards([f"{tmp_path}/*.xz"])


def test_a_glob_may_match_folders(tmp_path):
    for name in ("b/2.txt", "b/c/1.txt", "b/.d/5.txt", "3.txt"):
        write_raw_shard(tmp_path / name, ["one"])
    assert [shard.path.name for shard in find_raw_shards([f"{tmp_path}/*"])] == ["3.txt", "2.txt", "1.txt"]


def test_links_are_followed_once_and_a_broken_one_is_named(tmp_path):
    write_raw_shard(tmp_path / "b" / "1.txt", ["one"])
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "circle").symlink_to(folder)
    assert [shard.path.relative_to(folder).as_posix() for shard in find_raw_shards([folder])] == ["linked/1.txt"]
    (folder / "2.txt").symlink_to("gone.txt")
    for given in (folder, f"{folder}/*.txt"):
        with pytest.raises(FileNotFoundError, match="2.txt is a link to gone.txt, which does not exist"):
            find_raw_shards([given])
