"""Raw shards are found in files, folders and globs, each once and in order, and none is lost because of its name."""

import os

import pytest

from data_prep.documents.raw_shards import find_raw_shards, read_documents
from tests.data_prep.documents.raw_shards import jsonl, write_raw_shard, write_tar


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
        ValueError, match=r"notes.docx has no supported suffix \(.txt, .jsonl, .ndjson, .json, .parquet, .tar, alone"
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


def names(found):
    return [shard.path.name for shard in found]


def test_suffixes_may_be_in_upper_case_and_json_is_lines_of_json(tmp_path):
    for name in ("a.JSONL", "b.json", "c.ndjson", "d.json.gz", "e.Txt.BZ2"):
        write_raw_shard(tmp_path / name, ["one", "two"])
    found = find_raw_shards([tmp_path])
    assert [list(read_documents(shard)) for shard in found] == [["one", "two"]] * 5


def test_all_files_of_unknown_suffix_are_named_with_their_paths(tmp_path):
    for name in ("a/README.md", "a/x.docx", "b/x.txt", "b/data.csv.gz"):
        write_raw_shard(tmp_path / name, ["one"])
    with pytest.raises(ValueError) as error:
        find_raw_shards([tmp_path])
    listed = ", ".join(f"{tmp_path}/{name}" for name in ("a/README.md", "a/x.docx", "b/data.csv.gz"))
    assert "3 files have no supported suffix" in str(error.value) and f": {listed}; rename" in str(error.value)
    for number in range(3000):
        (tmp_path / "a" / f"{number}.md").touch()
    with pytest.raises(ValueError, match=r"3,003 files have .*, 2,983 more; .* --include GLOB") as error:
        find_raw_shards([tmp_path])
    assert len(str(error.value)) < 5000


def test_include_chooses_files_of_folders_and_globs_by_the_end_of_their_path(tmp_path):
    for name in ("README.md", "train/a.txt", "train/b.jsonl", "test/a.txt"):
        write_raw_shard(tmp_path / name, ["one"])
    assert names(find_raw_shards([tmp_path], include=("*.txt", "*.jsonl"))) == ["a.txt", "a.txt", "b.jsonl"]
    assert names(find_raw_shards([f"{tmp_path}/**/*"], include=("train/*",))) == ["a.txt", "b.jsonl"]
    with pytest.raises(ValueError, match=r"none of the 4 files in .* matches --include \*.parquet"):
        find_raw_shards([tmp_path], include=("*.parquet",))
    with pytest.raises(ValueError, match="README.md has no supported suffix"):
        find_raw_shards([tmp_path], include=("*.md",))
    assert names(find_raw_shards([tmp_path / "test/a.txt"], include=("*.jsonl",))) == ["a.txt"]


def test_include_chooses_members_of_archives_unless_the_archive_itself_matches(tmp_path):
    inner = write_tar(tmp_path / "inner.tar", {"c.jsonl": jsonl(["three"]).encode(), "notes.docx": b"x"}).read_bytes()
    members = {"README.md": b"read me", "a.jsonl": jsonl(["one"]).encode(), "b.txt": b"two", "in.tar": inner}
    for name in ("shards.tar.gz", "inner.tar"):
        write_tar(tmp_path / name, members)
    for given in (tmp_path, tmp_path / "shards.tar.gz"):
        raw_file, *_ = reversed(find_raw_shards([given], include=("*.jsonl",)))
        assert list(read_documents(raw_file)) == ["one", "three"]
    assert raw_file.identity()["include"] == ["*.jsonl"]
    whole = find_raw_shards([tmp_path], include=("shards.*", "*.jsonl"))[1]
    assert whole.include == ()
    with pytest.raises(ValueError, match="shards.tar.gz, README.md has no supported suffix"):
        list(read_documents(whole))


def test_links_that_double_at_every_level_are_walked_once(tmp_path):
    for level in range(40):  # 2**40 paths
        (tmp_path / str(level)).mkdir()
        for name in "ab":
            (tmp_path / str(level) / name).symlink_to(tmp_path / str(level + 1))
    write_raw_shard(tmp_path / "40" / "one.txt", ["one"])
    assert names(find_raw_shards([tmp_path / "0"])) == ["one.txt"]


def test_the_output_is_left_out_of_the_walk(tmp_path):
    for name in ("a.txt", "out/00000-a.txt", "out/tokenizer/tokenizer.json"):
        write_raw_shard(tmp_path / name, ["one"])
    for given in (tmp_path, f"{tmp_path}/**/*.*"):
        assert names(find_raw_shards([given], leave_out=tmp_path / "out")) == ["a.txt"]
    assert names(find_raw_shards([tmp_path / "a.txt"], leave_out=tmp_path / "absent")) == ["a.txt"]


def test_a_pipe_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="a.txt is a pipe, a socket or a device"):
        find_raw_shards([tmp_path])
