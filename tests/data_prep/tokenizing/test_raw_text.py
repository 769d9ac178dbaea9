"""Raw files of equal folder, name, size and time stay apart, and the byte ranges of one file together."""

import os

import pytest

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.raw_shards import RawFile
from data_prep.shards.token_stream import TokenStream
from data_prep.tokenizing.raw_text import find_text
from data_prep.tokenizing.sources import part_of
from data_prep.tokenizing.tokenize_folder import tokenize_folder
from tests.data_prep.tokenizing.test_interrupted import RUN_JOBS, all_files, interrupt_after, run_jobs_here

TEXTS = {"a": "one\n\n" * 60, "b": "two\n\n" * 60}


def write_twin(folder, content):
    path = folder / "en" / "0.txt"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    os.utime(path, ns=(10**18, 10**18))
    return path


def tokens(folder):
    stream = TokenStream(folder)
    return stream.read(0, stream.num_tokens).tolist()


@pytest.fixture
def twins(tmp_path):
    return [write_twin(tmp_path / "raw" / name, content) for name, content in TEXTS.items()]


@pytest.fixture
def run(twins, tmp_path, tokenizer_folder, monkeypatch):
    monkeypatch.setattr(RUN_JOBS, run_jobs_here)

    def tokenize(output, **options):
        options = {"inputs": [tmp_path / "raw"], "shard_bytes": 80, **options}  # cuts each file in two
        return tokenize_folder(tokenizer=tokenizer_folder, output=tmp_path / output, **options)

    return tokenize


@pytest.mark.parametrize("shard_bytes", [80, 10**9], ids=["ranges", "whole"])
def test_a_finished_folder_has_the_text_of_both(run, tmp_path, shard_bytes):
    before = run("tokens", shard_bytes=shard_bytes)
    files = all_files(tmp_path / "tokens")
    assert run("tokens", extend=True, shard_bytes=shard_bytes) == before
    assert all_files(tmp_path / "tokens") == files and before.num_documents == 120


def test_a_killed_command_resumes(run, tmp_path):
    run("untouched")
    interrupt_after(1, run, tmp_path / "tokens")
    run("tokens")
    assert tokens(tmp_path / "tokens") == tokens(tmp_path / "untouched")


def test_the_other_order_is_noticed(run, twins, tmp_path):
    run("finished", inputs=twins[::-1])
    interrupt_after(1, lambda output: run(output, inputs=twins), tmp_path / "tokens")
    run("tokens", inputs=twins[::-1])
    assert tokens(tmp_path / "tokens") == tokens(tmp_path / "finished")
    with pytest.raises(ValueError, match="0.txt has changed since .*finished was made of it"):
        run("finished", inputs=twins)


def test_a_third_one_is_new_and_alone_appended(run, tmp_path):
    before = run("tokens")
    write_twin(tmp_path / "raw" / "c", TEXTS["a"])
    after = run("tokens", extend=True, shard_bytes=10**9)  # is not cut as the others were
    assert after.shards[: len(before.shards)] == before.shards and after.num_documents == 180
    assert run("tokens", extend=True) == after


def test_folders_share_a_raw_file_and_one_folder_does_not(twins):
    first, second = map(RawFile, twins)
    ranges = first.cut(160, DocumentRules())
    parts = [part_of(each) for each in (*ranges, second)]
    text = find_text([parts, parts], [first, second])
    assert text.raw_shards == [*ranges, second] * 2 and text.new == []
    assert not any(text.is_same)  # their order may be another than it was
    text = find_text([parts], [first])
    assert text.raw_shards == [*ranges, None] and text.new == []
    assert text.is_same == [True] * len(ranges) + [False]
    assert find_text([parts[:-1], parts[:-1]], [first, second]).new == [second]
