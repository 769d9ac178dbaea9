"""Raw shards become token shards with an end token after each document, the same ones however many processes work."""

import hashlib

import pytest

from data_prep.encoding.tokenizer import load_tokenizer
from data_prep.shards.token_stream import TokenStream
from data_prep.tokenize_shards import main, tokenize_shards
from tests.data_prep.raw_shards import write_raw_shard

SUFFIXES = [".txt", ".txt.xz", ".jsonl.zst", ".parquet"]


@pytest.fixture
def raw_folder(tmp_path, documents):
    for number, suffix in enumerate(SUFFIXES):
        write_raw_shard(tmp_path / "raw" / f"part{number}{suffix}", documents[number % 3 :])
    return tmp_path / "raw"


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_shards_hold_the_documents_each_with_its_end_token(raw_folder, tmp_path, tokenizer_folder, documents):
    manifest = tokenize_shards([raw_folder], tokenizer=tokenizer_folder, output=tmp_path / "tokens")
    stream, tokenizer = TokenStream(tmp_path / "tokens"), load_tokenizer(tmp_path / "tokens" / "tokenizer")
    expected = [documents[number % 3 :] for number in range(4)]
    ids = [id_ for shard in expected for text in shard for id_ in [*tokenizer.encode(text).ids, 259]]
    assert stream.read(0, stream.num_tokens).tolist() == ids
    assert [shard.num_documents for shard in manifest.shards] == [3, 2, 1, 3]
    assert [shard.source for shard in manifest.shards] == [f"raw/part{i}{suffix}" for i, suffix in enumerate(SUFFIXES)]


def test_the_number_of_workers_does_not_change_a_byte(raw_folder, tmp_path, tokenizer_folder):
    manifests = []
    for num_workers in (1, 3):
        output = tmp_path / f"tokens{num_workers}"
        manifests += [tokenize_shards([raw_folder], tokenizer=tokenizer_folder, output=output, num_workers=num_workers)]
    assert manifests[0] == manifests[1]  # the digests of all blocks among it
    assert digests(tmp_path / "tokens1") == digests(tmp_path / "tokens3")


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


def test_no_worker_at_all_is_refused(raw_folder, tmp_path, tokenizer_folder):
    with pytest.raises(ValueError, match="--workers 0 must be at least 1"):
        tokenize_shards([raw_folder], tokenizer=tokenizer_folder, output=tmp_path / "tokens", num_workers=0)
