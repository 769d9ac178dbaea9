"""Token shards are read as one stream, by Megatron and nanoGPT as well, and damage is noticed."""

import json
import pickle
import struct

import numpy as np
import pytest

from data_prep.manifest import make_manifest, read_manifest, write_manifest
from data_prep.token_shards import ShardWriter, TokenStream, token_dtype

SHARDS = [[[1, 2, 9], [3, 9]], [], [[4, 9], [9], [5, 6, 7, 9]]]  # documents of three shards, the second is empty
STREAM = [1, 2, 9, 3, 9, 4, 9, 9, 5, 6, 7, 9]


def write_folder(folder, *, shards=SHARDS, vocab_size=10):
    entries = []
    for number, documents in enumerate(shards):
        with ShardWriter(folder, f"shard{number}", source=f"raw/{number}.txt", vocab_size=vocab_size) as writer:
            for ids in documents:
                writer.add_document(ids)
        entries.append(writer.shard)
    write_manifest(folder, make_manifest(entries, tokenizer_digest="sha256:t", vocab_size=vocab_size, end_token_id=9))
    return folder


def read_megatron_index(path):
    """A reader of .idx made from the format's description alone."""
    content = path.read_bytes()
    assert content[:9] == b"MMIDIDX\x00\x00"
    version, code, num_sequences, num_documents = struct.unpack_from("<QBQQ", content, 9)
    assert version == 1
    offset = 9 + 8 + 1 + 8 + 8
    lengths = np.frombuffer(content, "<i4", num_sequences, offset)
    pointers = np.frombuffer(content, "<i8", num_sequences, offset + 4 * num_sequences)
    documents = np.frombuffer(content, "<i8", num_documents, offset + 12 * num_sequences)
    assert len(content) == offset + 12 * num_sequences + 8 * num_documents
    return {8: np.uint16, 4: np.int32}[code], lengths, pointers, documents


@pytest.mark.parametrize("vocab_size", [10, 100_000])
def test_a_reader_of_megatron_files_finds_every_document(tmp_path, vocab_size):
    write_folder(tmp_path, vocab_size=vocab_size)
    dtype, lengths, pointers, documents = read_megatron_index(tmp_path / "shard2.idx")
    content = (tmp_path / "shard2.bin").read_bytes()
    found = [np.frombuffer(content, dtype, *where).tolist() for where in zip(lengths, pointers, strict=True)]
    assert found == SHARDS[2]
    assert documents.tolist() == [0, 1, 2, 3]


def test_nanogpt_maps_a_shard_as_it_is(tmp_path):
    write_folder(tmp_path)
    assert np.memmap(tmp_path / "shard0.bin", dtype=np.uint16, mode="r").tolist() == [1, 2, 9, 3, 9]


@pytest.mark.parametrize("start", range(len(STREAM) + 1))
def test_read_crosses_borders_of_shards(tmp_path, start):
    stream = TokenStream(write_folder(tmp_path))
    for length in range(len(STREAM) - start + 1):
        tokens = stream.read(start, length)
        assert tokens.dtype == np.int64
        assert tokens.tolist() == STREAM[start : start + length]


@pytest.mark.parametrize(("start", "length"), [(-1, 2), (11, 2), (0, -1)])
def test_reading_outside_the_stream_is_refused(tmp_path, start, length):
    with pytest.raises(ValueError, match=rf"tokens {start}..{start + length} are not within the stream's 0..12"):
        TokenStream(write_folder(tmp_path)).read(start, length)


def test_documents_gives_the_borders_of_each_shard(tmp_path):
    stream = TokenStream(write_folder(tmp_path))
    assert [stream.documents(shard).tolist() for shard in range(3)] == [[0, 3, 5], [0], [0, 2, 3, 7]]


def test_a_pickled_stream_opens_the_files_again(tmp_path):
    stream = TokenStream(write_folder(tmp_path, shards=[[[5] * 10_000]]))
    content = pickle.dumps(stream)
    assert len(content) < 1000
    assert pickle.loads(content).read(0, 3).tolist() == [5, 5, 5]


def test_the_manifest_sums_up_the_shards(tmp_path):
    manifest = read_manifest(write_folder(tmp_path))
    assert (manifest.num_tokens, manifest.num_documents, manifest.dtype, manifest.end_token_id) == (12, 5, "uint16", 9)
    assert [(shard.num_tokens, shard.num_documents) for shard in manifest.shards] == [(5, 2), (0, 0), (7, 3)]
    assert manifest.shards[0].source == "raw/0.txt"


def test_the_corpus_digest_follows_tokens_borders_and_tokenizer(tmp_path):
    variants = {"same": SHARDS, "token": [[[1, 2, 9], [4, 9]]], "border": [[[1, 2, 9, 3, 9]]], "none": [[]]}
    digests = {
        name: read_manifest(write_folder(tmp_path / name, shards=s)).corpus_digest for name, s in variants.items()
    }
    assert len(set(digests.values())) == len(variants)
    assert read_manifest(write_folder(tmp_path / "again")).corpus_digest == digests["same"]


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65499, "uint16"), (65500, "int32")])
def test_two_bytes_per_token_where_megatron_chooses_them(vocab_size, dtype):
    assert token_dtype(vocab_size) == dtype


@pytest.mark.parametrize("ids", [[0, 10], [-1, 9]])
def test_a_token_outside_the_vocabulary_leaves_no_file(tmp_path, ids):
    with pytest.raises(ValueError, match=rf"token ids {ids[0]}..{ids[1]} do not fit vocab_size=10"):
        write_folder(tmp_path, shards=[[[1, 9], ids]])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["bin", "idx"])
def test_a_missing_file_is_named(tmp_path, suffix):
    (write_folder(tmp_path) / f"shard2.{suffix}").unlink()
    with pytest.raises(FileNotFoundError, match=f"shard2.{suffix} is listed in the manifest but missing"):
        TokenStream(tmp_path)


@pytest.mark.parametrize(("suffix", "expected"), [("bin", 14), ("idx", 34 + 3 * 12 + 4 * 8)])
def test_a_file_of_the_wrong_size_is_named_with_both_sizes(tmp_path, suffix, expected):
    path = write_folder(tmp_path) / f"shard2.{suffix}"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"shard2.{suffix} has {expected - 1} bytes but the manifest says {expected}"):
        TokenStream(tmp_path)


def test_a_damaged_index_is_refused(tmp_path):
    path = write_folder(tmp_path) / "shard2.idx"
    content = bytearray(path.read_bytes())
    content[34] += 1  # the first document's length
    path.write_bytes(content)
    with pytest.raises(ValueError, match="shard2.idx describes 8 tokens but the manifest says 7"):
        TokenStream(tmp_path).documents(2)


def test_a_folder_without_manifest_is_unfinished(tmp_path):
    with pytest.raises(FileNotFoundError, match="manifest.json is missing"):
        TokenStream(tmp_path)


def edit_manifest(folder, change):
    values = json.loads((folder / "manifest.json").read_text())
    change(values)
    (folder / "manifest.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(schema_version=2), "schema_version 2, this code reads 1"),
        (lambda values: values.pop("dtype"), r"wrong fields: \['dtype'\]"),
        (lambda values: values.update(colour="red"), r"wrong fields: \['colour'\]"),
        (lambda values: values["shards"].reverse(), "its shards give sha256:"),
        (lambda values: values["shards"][0].update(xxh3="0"), "its shards give sha256:"),
    ],
)
def test_an_edited_manifest_is_refused(tmp_path, change, message):
    edit_manifest(write_folder(tmp_path), change)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path)


def test_a_manifest_that_is_not_json_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text("[")
    with pytest.raises(ValueError, match="manifest.json is not a manifest of token shards"):
        read_manifest(tmp_path)
