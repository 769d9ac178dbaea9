"""verify reports in one line that a folder is intact, or for each damaged file what is wrong with it."""

from dataclasses import replace

import pytest

from data_prep.shards.manifest import corpus_digest, read_manifest, write_manifest
from data_prep.shards.mixture import write_mixture
from data_prep.tokenizing.tokenize_folder import tokenize_folder
from data_prep.verify import main
from data_prep.verifying.folder_check import verify
from tests.damage import damages, flip_bit
from tests.data_prep.documents.raw_shards import write_raw_shard
from tests.data_prep.shards.test_token_stream import write_folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "tokens")


def test_an_intact_folder_is_one_line(folder, capsys):
    assert main([str(folder)]) == 0
    facts = "shards: 3, tokens: 12, records skipped: 0, tokenizer: none in the folder"
    assert capsys.readouterr().out == f"{folder} is intact ({facts})\n"


def test_every_damaged_file_is_reported_with_its_damage(folder, capsys):
    for position in (0, 13):
        flip_bit(folder / "shard2.bin", position)
    flip_bit(folder / "shard2.idx", 20)
    (folder / "shard1.idx").unlink()
    (folder / "shard0.bin").write_bytes(b"\x01\x00")
    assert main([str(folder)]) == 1
    size, missing, index, blocks = capsys.readouterr().out.splitlines()
    assert "shard0.bin has 2 bytes but the manifest says 10" in size
    assert "shard1.idx is listed in the manifest but missing" in missing
    assert "shard2.idx is damaged: it has digest " in index
    assert "shard2.bin is damaged: bytes 0..3 have digest " in blocks
    assert blocks.endswith("(2 of its 4 blocks are damaged)")


def test_a_mixture_is_checked_part_by_part_those_of_0_epochs_included(tmp_path, capsys):
    parts = {name: write_folder(tmp_path / name) for name in ("one", "two", "valid")}
    write_mixture(tmp_path / "mixture.yaml", {"one": 1, "two": 2, "valid": 0})
    assert main([str(tmp_path), str(parts["one"])]) == 0
    assert capsys.readouterr().out.count(" is intact (") == 4
    flip_bit(parts["valid"] / "shard0.bin", 0)
    assert main([str(tmp_path)]) == 1
    intact, also_intact, damaged = capsys.readouterr().out.splitlines()
    assert f"{parts['valid']}/shard0.bin is damaged" in damaged


def test_an_id_outside_the_vocabulary_is_reported(folder, capsys):
    manifest = read_manifest(folder)  # as written by a program that knows the digests but not the ids
    write_manifest(folder, replace(manifest, vocab_size=9, end_token_id=8))
    assert main([str(folder)]) == 1
    assert "shard0.bin holds token id 9, but vocab_size=9 in its manifest" in capsys.readouterr().out


def test_a_damaged_manifest_is_reported(folder, capsys):
    flip_bit(folder / "manifest.json", 100)
    assert main([str(folder)]) == 1
    assert "manifest.json is damaged: its content has digest " in capsys.readouterr().out


def test_a_folder_without_token_shards_is_a_mistake_of_the_user(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "manifest.json is missing" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named(folder, monkeypatch):
    def failing(self):
        raise OSError(5, "Input/output error")
        yield

    monkeypatch.setattr("data_prep.verifying.shard_check.BlockCheck.pieces", failing)
    assert verify(folder)[0] == f"{folder}/shard0.bin: [Errno 5] Input/output error"


def test_every_damage_is_found(folder):
    for path in damages(sorted(folder.iterdir()), number=200):
        [problem] = verify(folder)
        assert path.name in problem
    assert verify(folder) == []


@pytest.fixture
def tokenized(tmp_path, tokenizer_folder, documents):
    raw = write_raw_shard(tmp_path / "raw" / "part.txt", documents)
    tokenize_folder([raw], tokenizer=tokenizer_folder, output=tmp_path / "tokens")
    return tmp_path / "tokens"


def test_every_byte_of_the_tokenizer_is_compared(tokenized, capsys):
    assert main([str(tokenized)]) == 0
    assert capsys.readouterr().out.endswith(", records skipped: 0, tokenizer: intact)\n")
    for path in sorted((tokenized / "tokenizer").iterdir()):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + b"!")
        [problem] = verify(tokenized)
        assert problem.startswith(f"{path} has {len(content)} bytes and digest ")
        path.unlink()
        [problem] = verify(tokenized)
        assert problem.startswith(f"{path} is missing")
        path.write_bytes(content)
    assert main([str(tokenized)]) == 0


def test_a_file_beside_the_tokenizers_own_is_reported(tokenized):
    path = tokenized / "tokenizer" / "modeling_hash_gpt.py"
    path.write_text("print('code')")
    [problem] = verify(tokenized)
    assert problem.startswith(f"{path} is not one of the tokenizer's files")


def test_a_tokenizer_that_did_not_make_the_tokens_is_reported(tokenized):
    manifest = read_manifest(tokenized)
    write_manifest(
        tokenized, replace(manifest, tokenizer_digest="x", corpus_digest=corpus_digest(manifest.shards, "x"))
    )
    [problem] = verify(tokenized)
    assert problem.startswith(f"{tokenized / 'tokenizer'} has digest sha256:") and "were made with x" in problem
