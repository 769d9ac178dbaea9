"""sources.jsonl says what every token shard was made of, and notices any change of itself."""

import os

import pytest
import xxhash

from data_prep.documents.raw_shards import RawFile
from data_prep.shards.manifest import read_manifest
from data_prep.tokenizing.shard_job import ShardJob, ShardTokenizer, tokenize_shard
from data_prep.tokenizing.sources import read_sources
from data_prep.tokenizing.tokenize_folder import tokenize_folder
from data_prep.verifying.folder_check import verify
from tests.damage import flip_bit


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw" / "rows.jsonl"
    path.write_text('{"text": "one"}\n{"text": ""}\nbad\n{"text": "two"}\n')
    return path


def test_a_source_counts_its_documents_and_names_its_bytes(raw, tmp_path, tokenizer_folder):
    manifest = tokenize_folder([raw], tokenizer=tokenizer_folder, output=tmp_path / "tokens", max_bad_records=1)
    [source] = read_sources(tmp_path / "tokens", manifest)
    assert (source.shard, source.part.source) == (manifest.shards[0].name, "raw/rows.jsonl")
    assert source.part.identity == {"num_bytes": raw.stat().st_size, "mtime_ns": raw.stat().st_mtime_ns}
    assert source.xxh3 == xxhash.xxh3_128_hexdigest(raw.read_bytes())
    assert (source.num_documents, source.num_empty, source.num_tokens) == (2, 1, manifest.num_tokens)
    assert [record[:6] for record in source.skipped] == ["line 3"]


def test_a_changed_file_of_sources_is_reported(raw, tmp_path, tokenizer_folder):
    tokenize_folder([raw], tokenizer=tokenizer_folder, output=tmp_path / "tokens", max_bad_records=1)
    flip_bit(tmp_path / "tokens" / "sources.jsonl", 30)
    [problem] = verify(tmp_path / "tokens")
    assert "sources.jsonl is damaged: it has " in problem
    with pytest.raises(ValueError, match="sources.jsonl is damaged"):
        read_sources(tmp_path / "tokens", read_manifest(tmp_path / "tokens"))


@pytest.mark.parametrize("change", ["grows", "is cut", "is replaced by a text of its size"])
def test_a_raw_file_that_changes_while_it_is_read_is_an_error(tmp_path, tokenizer_folder, change):
    path = tmp_path / "text.txt"
    path.write_text("a line\n\n" * 10_000)
    os.utime(path, ns=(0, 0))

    def on_read(num_bytes):
        if change == "grows":
            os.truncate(path, 80_008)
        elif change == "is cut":
            os.truncate(path, 40_000)
        else:
            os.utime(path)

    tokenizer = ShardTokenizer(tokenizer_folder, backend="tokenizers", num_threads=1)
    job = ShardJob((RawFile(path),), "shard", tmp_path / "tokens", "", 259)
    with pytest.raises(ValueError, match="text.txt changed while it was read: it had num_bytes 80000, .* start ag"):
        tokenize_shard(job, tokenizer, on_read=on_read, on_tokens=lambda n: None)
    assert list((tmp_path / "tokens").iterdir()) == []
