"""A finished folder grows: its token shards stay as they are, it can be read meanwhile, and a kill changes nothing."""

import shutil
from dataclasses import replace

import pytest

from data_prep.shards.manifest import read_manifest, write_manifest
from data_prep.shards.token_stream import TokenStream
from data_prep.shards.tokenizer_files import copy_tokenizer
from data_prep.tokenizing.tokenize_folder import tokenize_folder
from data_prep.tokenizing.unfinished import SPEC_NAME
from data_prep.train_tokenizer import save_tokenizer, train_tokenizer
from data_prep.verifying.folder_check import verify
from tests.data_prep.documents.raw_shards import write_raw_shard
from tests.data_prep.tokenizing.test_interrupted import (
    RUN_JOBS,
    all_files,
    contents,
    killed_before_step,
    run_jobs_here,
)


@pytest.fixture
def run(tmp_path, documents, tokenizer_folder, monkeypatch):
    """Tokenize two raw shards, add a third that sorts before them, and return a function that extends a copy."""
    for name in ("b", "c"):
        write_raw_shard(tmp_path / "raw" / f"{name}.txt.gz", documents)
    monkeypatch.setattr(RUN_JOBS, run_jobs_here)

    def tokenize(output, **options):
        options = {"tokenizer": tokenizer_folder, "shard_bytes": 1, **options}
        return tokenize_folder([tmp_path / "raw"], output=output, **options)

    tokenize(tmp_path / "before")
    write_raw_shard(tmp_path / "raw" / "a.txt.gz", documents[::-1])
    return tokenize


@pytest.fixture
def folder(run, tmp_path):
    shutil.copytree(tmp_path / "before", tmp_path / "tokens")
    return tmp_path / "tokens"


def test_new_raw_shards_become_new_token_shards_and_the_others_stay(run, folder, tmp_path):
    kept = {name: file for name, file in all_files(folder).items() if name[:5] in ("00000", "00001")}
    manifest = run(folder, extend=True)
    assert [shard.name for shard in manifest.shards] == ["00000-b", "00001-c", "00002-a"]
    assert kept.items() <= all_files(folder).items() and len(kept) == 6
    before = read_manifest(tmp_path / "before")
    assert manifest.shards[:2] == before.shards and manifest.corpus_digest != before.corpus_digest
    assert verify(folder) == []
    assert not (folder / SPEC_NAME).exists()


def test_a_folder_that_is_extended_from_nothing_is_a_new_one(run, tmp_path):
    run(tmp_path / "new", extend=True)
    run(tmp_path / "plain")
    assert contents(tmp_path / "new") == contents(tmp_path / "plain")


def test_a_kill_before_any_step_leaves_a_folder_that_can_be_read_and_extended(run, folder, tmp_path):
    untouched, before = tmp_path / "untouched", TokenStream(tmp_path / "before")
    shutil.copytree(folder, untouched)
    tokens = before.read(0, before.num_tokens).tolist()
    run(untouched, extend=True)
    step, is_killed = 0, True
    while is_killed:
        output = tmp_path / f"killed{step}"
        shutil.copytree(folder, output)
        is_killed = killed_before_step(step, lambda output=output: run(output, extend=True))
        stream = TokenStream(output)
        assert stream.read(0, before.num_tokens).tolist() == tokens
        assert verify(output) == []
        run(output, extend=True)
        (output / "verified.json").unlink(missing_ok=True)
        assert contents(output) == contents(untouched)
        step += 1
    assert step > 15


def test_an_interrupted_extension_resumes_without_the_option(run, folder, tmp_path):
    step = 0
    while not (folder / SPEC_NAME).exists():
        killed_before_step(step, lambda: run(folder, extend=True))
        step += 1
    assert [shard.name for shard in run(folder).shards] == ["00000-b", "00001-c", "00002-a"]


def test_an_interrupted_extension_can_be_overwritten(run, folder, tmp_path):
    step = 0
    while not (folder / SPEC_NAME).exists():
        killed_before_step(step, lambda: run(folder, extend=True))
        step += 1
    assert [shard.name for shard in run(folder, overwrite=True).shards] == ["00000-a", "00001-b", "00002-c"]


def test_a_raw_shard_that_was_removed_or_changed_is_an_error(run, folder, tmp_path, documents):
    (tmp_path / "raw" / "c.txt.gz").rename(tmp_path / "c.txt.gz")
    before = contents(folder)
    with pytest.raises(ValueError, match="tokens holds text of raw/c.txt.gz, which this command does not read"):
        run(folder, extend=True)
    write_raw_shard(tmp_path / "raw" / "c.txt.gz", documents[1:])
    with pytest.raises(
        ValueError,
        match="c.txt.gz has changed since .*tokens was made of it: it had num_bytes 86, .* now it has num_bytes 58",
    ):
        run(folder, extend=True)
    assert contents(folder) == before


def test_another_text_of_the_same_size_is_noticed_and_a_copy_of_the_text_is_not(run, folder, tmp_path):
    path = tmp_path / "raw" / "c.txt.gz"
    shutil.copy(path, tmp_path / "raw" / "copy")
    (tmp_path / "raw" / "copy").replace(path)  # the same bytes, later
    assert len(run(folder, extend=True).shards) == 3
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="c.txt.gz has changed since"):
        run(folder)


def test_a_tokenizer_that_was_changed_in_the_folder_adds_no_tokens(run, folder, tmp_path, documents):
    path = folder / "tokenizer" / "tokenizer.json"
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(ValueError, match="tokenizer.json has .* bytes and digest .*, but was written with "):
        run(folder, extend=True)
    other = tmp_path / "other"
    save_tokenizer(train_tokenizer(documents, vocab_size=258), other)
    files = copy_tokenizer(other, folder)
    write_manifest(folder, replace(read_manifest(folder), tokenizer_files=files))  # by a stranger
    with pytest.raises(ValueError, match="tokens/tokenizer has digest sha256:.*, but the token shards are of sha256:"):
        run(folder, extend=True)
    assert not list(folder.glob("00002-*"))
