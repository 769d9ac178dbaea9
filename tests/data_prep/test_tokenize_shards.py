"""The command tokenizes, reports what it skipped, and refuses damaged input and folders in use."""

import pytest

from data_prep.shards.manifest import read_manifest
from data_prep.shards.token_stream import TokenStream
from data_prep.tokenize_shards import main
from data_prep.tokenizing.sources import read_sources
from tests.data_prep.documents.raw_shards import write_raw_shard


def test_a_damaged_shard_is_reported_and_leaves_no_manifest(raw_folder, tmp_path, tokenizer_folder, capsys):
    damaged = raw_folder / "part1.txt.xz"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    arguments = ["--input", raw_folder, "--tokenizer", tokenizer_folder, "--output", tmp_path / "tokens"]
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "part1.txt.xz is damaged near byte" in error
    assert not (tmp_path / "tokens" / "manifest.json").exists()
    assert not list((tmp_path / "tokens").glob("*part1*"))


def test_a_folder_in_use_is_replaced_only_when_asked(raw_folder, tmp_path, tokenizer_folder, capsys):
    (tmp_path / "tokens").mkdir()
    for name in ("00009-old.bin", "manifest.json", "notes.md"):
        (tmp_path / "tokens" / name).write_text("old")
    arguments = [
        "--input",
        raw_folder,
        "--tokenizer",
        tokenizer_folder,
        "--output",
        tmp_path / "tokens",
        "--workers",
        2,
    ]
    arguments = [str(argument) for argument in arguments]
    assert main(arguments) == 2
    assert "tokens is not empty" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    assert "9 documents" in capsys.readouterr().out
    assert TokenStream(tmp_path / "tokens").manifest.num_documents == 9
    assert not (tmp_path / "tokens" / "00009-old.bin").exists() and (tmp_path / "tokens" / "notes.md").exists()


@pytest.fixture
def raw_with_two_bad_rows(tmp_path):
    for name in ("a", "b"):
        write_raw_shard(tmp_path / "raw" / f"{name}.jsonl", ["good"])
        with open(tmp_path / "raw" / f"{name}.jsonl", "a") as file:
            file.write("bad\n")
    return tmp_path / "raw"


def arguments_of(raw, tokenizer_folder, output, *more):
    return ["--input", str(raw), "--tokenizer", str(tokenizer_folder), "--output", str(output), *more]


def test_skipped_records_are_in_the_manifest_and_counted(raw_with_two_bad_rows, tokenizer_folder, tmp_path, capsys):
    assert (
        main(arguments_of(raw_with_two_bad_rows, tokenizer_folder, tmp_path / "tokens", "--max_bad_records", "2")) == 0
    )
    assert "2 documents, " in capsys.readouterr().out
    skipped = [each.skipped for each in read_sources(tmp_path / "tokens", read_manifest(tmp_path / "tokens"))]
    assert skipped == [("line 2 (byte 17 of its text) is not JSON: Expecting value: line 1 column 1 (char 0)",)] * 2


def test_more_skipped_records_than_allowed_leave_a_folder_to_finish_without_manifest(
    raw_with_two_bad_rows, tokenizer_folder, tmp_path, capsys
):
    arguments = arguments_of(raw_with_two_bad_rows, tokenizer_folder, tmp_path / "tokens", "--max_bad_records")
    assert main([*arguments, "1"]) == 2
    error = capsys.readouterr().err
    assert "2 records cannot be read, but --max_bad_records is 1: raw/a.jsonl, line 2" in error
    assert not (tmp_path / "tokens" / "manifest.json").exists()
    assert main([*arguments, "2"]) == 0
    assert main(arguments_of(raw_with_two_bad_rows, tokenizer_folder, tmp_path / "other")) == 2
    assert "a.jsonl, line 2 (byte 17 of its text) is not JSON" in capsys.readouterr().err
