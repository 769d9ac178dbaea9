"""The command tokenizes, reports what it skipped, and refuses damaged input and folders in use."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from data_prep.shards.manifest import read_manifest
from data_prep.shards.token_stream import TokenStream
from data_prep.tokenize_shards import main
from data_prep.tokenizing.sources import read_sources
from tests.data_prep.documents.files.web_server import web_server
from tests.data_prep.documents.raw_shards import write_raw_shard
from tests.data_prep.tokenizing.test_interrupted import all_files, recorded_files
from train.processes.project_root import ROOT


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
    assert "manifest.json is damaged" in capsys.readouterr().err
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
    assert "2 of 4 records cannot be read, but --max_bad_records is 1: raw/a.jsonl, line 2" in error
    assert not (tmp_path / "tokens" / "manifest.json").exists()
    assert main([*arguments, "2"]) == 0
    assert main(arguments_of(raw_with_two_bad_rows, tokenizer_folder, tmp_path / "other")) == 2
    assert "a.jsonl, line 2 (byte 17 of its text) is not JSON" in capsys.readouterr().err


def test_keep_going_writes_the_other_token_shards_and_names_all_failures(tmp_path, tokenizer_folder, documents, capsys):
    for number in range(8):
        path = write_raw_shard(tmp_path / "raw" / f"{number}.txt.gz", documents * 3)
        if number in (1, 2, 7):  # in token shards 0-2 and 6-7
            path.write_bytes(path.read_bytes()[:-2])
    options = ["--keep_going", "--workers", "2", "--shard_bytes", "360"]
    arguments = arguments_of(tmp_path / "raw", tokenizer_folder, tmp_path / "tokens", *options)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "3 raw shards cannot be read, so 2 of 3 token shards are missing" in error
    assert [f"{number}.txt.gz is damaged" in error for number in range(8)] == [
        number in (1, 2, 7) for number in range(8)
    ]
    kept = recorded_files(tmp_path / "tokens")
    for number in (1, 2, 7):
        write_raw_shard(tmp_path / "raw" / f"{number}.txt.gz", documents * 3)
    assert main(arguments) == 0
    assert kept.items() <= all_files(tmp_path / "tokens").items() and len(kept) == 3


def test_a_disk_without_room_is_refused_before_anything_is_read(raw_folder, tokenizer_folder, tmp_path, capsys):
    def disk(folder):
        return shutil._ntuple_diskusage(10, 10, 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", disk)
        assert main(arguments_of(raw_folder, tokenizer_folder, tmp_path / "tokens")) == 2
    assert "tokens needs about 0.0 GB, but its disk has 0.0 GB left; make room" in capsys.readouterr().err


def test_ctrl_c_is_one_line_and_status_130_and_the_command_resumes(tmp_path, tokenizer_folder, documents):
    for number in range(2):
        write_raw_shard(tmp_path / "raw" / f"{number}.txt.gz", documents * 60_000)
    options = ["--workers", "2", "--shard_bytes", "1"]
    arguments = arguments_of(tmp_path / "raw", tokenizer_folder, tmp_path / "tokens", *options)
    command = [sys.executable, "-m", "data_prep.tokenize_shards", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list((tmp_path / "tokens").glob(".0000*.bin.*.tmp")):
        time.sleep(0.02)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the command and its workers
    lines = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 130
    assert [line for line in lines if line.strip() and "tokenize:" not in line] == [
        "interrupted: start the same command again to go on"
    ]
    assert not list((tmp_path / "tokens").glob(".*.tmp"))


def test_the_output_may_lie_in_the_input_and_other_files_too(raw_folder, tokenizer_folder, tmp_path, capsys):
    (raw_folder / "README.md").write_text("not text to train on")
    arguments = arguments_of(raw_folder, tokenizer_folder, raw_folder / "tokens", "--overwrite")
    assert main(arguments) == 2
    assert f"{raw_folder}/README.md has no supported suffix" in capsys.readouterr().err
    arguments += ["--include", "*.txt", "*.txt.*"]
    assert main(arguments) == 0
    first = read_manifest(raw_folder / "tokens")
    assert main(arguments) == 0
    assert read_manifest(raw_folder / "tokens") == first
    assert first.num_documents == 5 and first.rules.include == ("*.txt", "*.txt.*")


def test_remote_text_gives_the_token_shards_of_local_text(raw_folder, tokenizer_folder, tmp_path, capsys):
    options = ["--shard_bytes", "200", "--include", "*.txt", "*.xz"]
    assert main(arguments_of(raw_folder, tokenizer_folder, tmp_path / "local", *options)) == 0
    with web_server(raw_folder) as (url, _):
        arguments = arguments_of(f"{url}/", tokenizer_folder, tmp_path / "remote", *options)
        assert main(arguments) == 0
        (raw_folder / "part0.txt").write_text("other text")
        capsys.readouterr()
        assert main([*arguments, "--extend"]) == 2
        assert "part0.txt" in capsys.readouterr().err
    local, remote = (read_manifest(tmp_path / name) for name in ("local", "remote"))
    assert local.corpus_digest == remote.corpus_digest and local.num_documents == 5
