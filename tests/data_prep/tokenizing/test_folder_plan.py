"""Small raw shards are joined and large ones are cut, by sizes alone, and the tokens are those of one pass."""

import argparse
import random

import pytest

from data_prep import prepare, tokenize_shards
from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.hub_datasets import DatasetShard
from data_prep.documents.raw_shards import RawFile
from data_prep.shards.token_stream import TokenStream
from data_prep.tokenizing.folder_plan import (
    NUM_SHARDS,
    SHARD_BYTES,
    SHARD_BYTES_HELP,
    SMALLEST_SHARD_BYTES,
    plan_shards,
    shard_bytes_of,
)
from data_prep.tokenizing.sources import read_sources
from data_prep.tokenizing.tokenize_folder import tokenize_folder


def raw_files(folder, sizes, suffix=".txt"):
    for number, size in enumerate(sizes):
        (folder / f"f{number}{suffix}").write_bytes(bytes(size))
    return [RawFile(folder / f"f{number}{suffix}") for number in range(len(sizes))]


def plan(raw_shards, **options):
    """Names of the token shards and, for each, the raw shards and ranges that it holds; 4 bytes of text per token."""
    planned = plan_shards(raw_shards, DocumentRules(), token_size=2, **options)
    return {each.name: [(raw.name, raw.start, raw.end) for raw in each.raw_shards] for each in planned}


def test_neighbours_are_joined_up_to_the_size_of_a_token_shard(tmp_path):
    # 2 bytes of tokens per 4 of text: 100 holds 200 bytes of text
    assert plan(raw_files(tmp_path, [100, 60, 50, 0, 160]), shard_bytes=100) == {
        "00000-f0": [("f0", 0, None), ("f1", 0, None)],
        "00001-f2": [("f2", 0, None), ("f3", 0, None)],
        "00002-f4": [("f4", 0, None)],
    }


def test_a_large_plain_file_is_cut_and_a_compressed_one_is_not(tmp_path):
    assert plan(raw_files(tmp_path, [500]), shard_bytes=100) == {
        "00000-f0": [("f0", 0, 166)],
        "00001-f0": [("f0", 166, 333)],
        "00002-f0": [("f0", 333, 500)],
    }
    assert plan(raw_files(tmp_path, [500], ".txt.zst"), shard_bytes=100) == {"00000-f0": [("f0", 0, None)]}


def test_a_small_corpus_is_divided_into_64_token_shards_of_at_least_16_mib(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.tokenizing.folder_plan.SMALLEST_SHARD_BYTES", 50)
    assert len(plan(raw_files(tmp_path, [10] * 6400))) == 64
    assert len(plan(raw_files(tmp_path, [10] * 25))) == 3  # 50 bytes of tokens hold 100 bytes of text


def test_the_parts_of_a_data_set_are_never_joined():
    parts = [DatasetShard("hf:x", number, 3, None, 0) for number in range(3)]
    names = [each.name for each in plan_shards(parts, DocumentRules(), token_size=2)]
    assert names == ["00000-x", "00001-x", "00002-x"]


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_ranges_of_a_file_have_the_tokens_and_documents_of_the_whole(tmp_path, tokenizer_folder, suffix):
    generator = random.Random(0)
    texts = ["\n".join("word " * generator.randrange(9) + "end" for _ in range(3)) for _ in range(60)]
    ends = {".txt": "{}\n\n", ".jsonl": '{{"text": "{}"}}\n'}[suffix]
    path = tmp_path / f"text{suffix}"
    path.write_text("".join(ends.format(text.replace("\n", "\\n") if suffix == ".jsonl" else text) for text in texts))
    streams = []
    for shard_bytes in (10**9, 300):
        output = tmp_path / str(shard_bytes)
        tokenize_folder([path], tokenizer=tokenizer_folder, output=output, shard_bytes=shard_bytes)
        streams.append(TokenStream(output))
    whole, cut = streams
    assert cut.read(0, cut.num_tokens).tolist() == whole.read(0, whole.num_tokens).tolist()
    assert cut.manifest.num_documents == whole.manifest.num_documents == 60
    sources = read_sources(cut.folder, cut.manifest)
    assert len(sources) == len(cut.manifest.shards) > 5
    assert sources[0].part.identity["end"] == sources[1].part.identity["start"]


def test_the_size_of_a_token_shard_is_a_whole_number_of_bytes():
    assert [shard_bytes_of(text) for text in ("1", "1e9", "20_000", "2.5e3")] == [1, 10**9, 20_000, 2500]
    assert (SHARD_BYTES, NUM_SHARDS, SMALLEST_SHARD_BYTES) == (10**9, 64, 2**24)
    assert "default: a 64th of the tokens, from 16 MiB to 1e9" in SHARD_BYTES_HELP
    for text in ("inf", "-inf", "nan", "0", "0.5", "-1", "1.5", "large"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not a number of bytes, such as 1e9"):
            shard_bytes_of(text)


@pytest.mark.parametrize("main", [tokenize_shards.main, prepare.main], ids=["tokenize_shards", "prepare"])
def test_an_infinite_size_is_refused_in_one_line(main, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--shard_bytes", "inf"])
    assert ended.value.code == 2
    assert "argument --shard_bytes: 'inf' is not a number of bytes, such as 1e9" in capsys.readouterr().err


def test_a_long_name_is_cut_between_characters(tmp_path, tokenizer_folder):
    raw = [tmp_path / "raw" / f"{name}.txt" for name in ("a" * 250, "aé" * 80, "b\udcff")]  # the last is not UTF-8
    raw[0].parent.mkdir()
    for path in raw:
        path.write_text("one\n\n")
    manifest = tokenize_folder(raw, tokenizer=tokenizer_folder, output=tmp_path / "tokens", shard_bytes=3)
    names = ["00000-" + "a" * 100, "00001-" + "aé" * 33 + "a", "00002-b"]
    assert [each.name for each in manifest.shards] == names
