"""Raw shards become token shards with an end token after each document, the same for any number of processes."""

import hashlib

import pytest

from data_prep.encoding.tokenizer import load_tokenizer
from data_prep.shards.token_stream import TokenStream
from data_prep.tokenizing.sources import read_sources
from data_prep.tokenizing.tokenize_folder import tokenize_folder
from tests.data_prep.conftest import RAW_SUFFIXES


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_shards_hold_the_documents_each_with_its_end_token(raw_folder, tmp_path, tokenizer_folder, documents):
    manifest = tokenize_folder([raw_folder], tokenizer=tokenizer_folder, output=tmp_path / "tokens")
    stream, tokenizer = TokenStream(tmp_path / "tokens"), load_tokenizer(tmp_path / "tokens" / "tokenizer")
    expected = [documents[number % 3 :] for number in range(4)]
    ids = [id_ for shard in expected for text in shard for id_ in [*tokenizer.encode(text).ids, 259]]
    assert stream.read(0, stream.num_tokens).tolist() == ids
    assert [shard.num_documents for shard in manifest.shards] == [9]
    sources = [f"raw/part{number}{suffix}" for number, suffix in enumerate(RAW_SUFFIXES)]
    assert [each.part.source for each in read_sources(tmp_path / "tokens", manifest)] == sources


def test_the_number_of_workers_does_not_change_a_byte(raw_folder, tmp_path, tokenizer_folder):
    manifests = []
    options = {"tokenizer": tokenizer_folder, "shard_bytes": 30}
    for num_workers in (1, 3):
        output = tmp_path / f"tokens{num_workers}"
        manifests += [tokenize_folder([raw_folder], output=output, num_workers=num_workers, **options)]
    assert manifests[0] == manifests[1]  # which include the digests of all blocks
    assert digests(tmp_path / "tokens1") == digests(tmp_path / "tokens3")


def test_zero_workers_are_refused(raw_folder, tmp_path, tokenizer_folder):
    with pytest.raises(ValueError, match="--workers 0 must be at least 1"):
        tokenize_folder([raw_folder], tokenizer=tokenizer_folder, output=tmp_path / "tokens", num_workers=0)
