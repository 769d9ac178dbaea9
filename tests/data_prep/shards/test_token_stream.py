"""Token shards are read as one stream, and any damage that is read is an error."""

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import xxhash

from data_prep.shards.block_sums import BlockHasher
from data_prep.shards.manifest import KIND, make_manifest, read_manifest, token_dtype, write_manifest
from data_prep.shards.shard_writer import ShardWriter
from data_prep.shards.token_stream import TokenStream
from data_prep.storage.sealed_json import sealed_json, unsealed
from tests.damage import damages, flip_bit

SHARDS = [[[1, 2, 9], [3, 9]], [], [[4, 9], [9], [5, 6, 7, 9]]]  # documents of three shards, the second is empty
STREAM = [1, 2, 9, 3, 9, 4, 9, 9, 5, 6, 7, 9]
BLOCK_BYTES = 4  # two tokens: 3, 0 and 4 blocks


def write_folder(folder, *, shards=SHARDS, vocab_size=10, block_bytes=BLOCK_BYTES):
    entries = []
    for number, documents in enumerate(shards):
        with ShardWriter(folder, f"shard{number}", vocab_size=vocab_size, block_bytes=block_bytes) as writer:
            for ids in documents:
                writer.add_document(ids)
        entries.append(writer.shard)
    write_manifest(
        folder,
        make_manifest(entries, tokenizer_digest="sha256:t", vocab_size=vocab_size, end_token="<end>", end_token_id=9),
    )
    return folder


def edit_manifest(folder, change):
    """Change the manifest as a program that knows its format would."""
    path = folder / "manifest.json"
    values = unsealed(path.read_bytes(), kind=KIND)
    change(values)
    path.write_bytes(sealed_json(values, kind=KIND))


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


def test_documents_returns_the_borders_of_each_shard(tmp_path):
    stream = TokenStream(write_folder(tmp_path))
    assert [stream.documents(shard).tolist() for shard in range(3)] == [[0, 3, 5], [0], [0, 2, 3, 7]]


def test_a_pickled_stream_opens_the_files_again(tmp_path):
    stream = TokenStream(write_folder(tmp_path, shards=[[[5] * 10_000]], block_bytes=2**20))
    content = pickle.dumps(stream)
    assert len(content) < 1000
    assert pickle.loads(content).read(0, 3).tolist() == [5, 5, 5]


@pytest.mark.parametrize("suffix", ["bin", "idx", "sum"])
def test_a_missing_file_is_named(tmp_path, suffix):
    (write_folder(tmp_path) / f"shard2.{suffix}").unlink()
    with pytest.raises(FileNotFoundError, match=f"shard2.{suffix} is listed in the manifest but missing"):
        TokenStream(tmp_path)


@pytest.mark.parametrize(("suffix", "expected"), [("bin", 14), ("idx", 34 + 3 * 12 + 4 * 8)])
def test_a_file_of_the_wrong_size_is_named_with_both_sizes_when_it_is_opened(tmp_path, suffix, expected):
    path = write_folder(tmp_path) / f"shard2.{suffix}"
    path.write_bytes(path.read_bytes()[:-1])
    stream = TokenStream(tmp_path)
    assert stream.read(0, 5).tolist() == STREAM[:5] and stream.documents(0).tolist() == [0, 3, 5]
    with pytest.raises(ValueError, match=f"shard2.{suffix} has {expected - 1} bytes but the manifest says {expected}"):
        stream.read(5, 1) if suffix == "bin" else stream.documents(2)
    if suffix == "bin":
        with pytest.raises(ValueError, match="shard2.bin has 13 bytes but the manifest says 14"):
            stream.check_sizes()


def test_a_file_that_shrinks_while_it_is_open_is_an_error(tmp_path):
    stream = TokenStream(write_folder(tmp_path))
    assert stream.read(5, 1).tolist() == STREAM[5:6]
    os.truncate(tmp_path / "shard2.bin", 9)
    with pytest.raises(ValueError, match="shard2.bin had 14 bytes when it was opened, but now ends after 9"):
        stream.read(9, 1)


def read_everything(folder):
    stream = TokenStream(folder)
    for shard in range(len(stream.manifest.shards)):
        stream.documents(shard)
    return stream.read(0, stream.num_tokens).tolist()


def test_a_thousand_flipped_bits_and_truncations_are_all_errors(tmp_path):
    write_folder(tmp_path)
    for path in damages(sorted(tmp_path.iterdir()), number=1000):
        with pytest.raises(ValueError, match=path.name):
            read_everything(tmp_path)
    assert read_everything(tmp_path) == STREAM


def test_an_error_names_the_damaged_file_its_bytes_and_both_digests(tmp_path):
    path = write_folder(tmp_path) / "shard2.bin"
    written = xxhash.xxh3_64_hexdigest(path.read_bytes()[4:8])[8:]
    flip_bit(path, 5)
    found = xxhash.xxh3_64_hexdigest(path.read_bytes()[4:8])[8:]
    message = f"{path} is damaged: bytes 4..7 have digest {found} but were written with {written}"
    for _ in range(2):  # a retry fails too
        with pytest.raises(ValueError, match=message):
            TokenStream(tmp_path).read(8, 1)


def test_damage_in_blocks_that_are_not_read_is_not_an_error(tmp_path):
    write_folder(tmp_path)
    flip_bit(tmp_path / "shard2.bin", 5)  # tokens 7 and 8 of the stream
    flip_bit(tmp_path / "shard0.idx", 40)
    stream = TokenStream(tmp_path)
    assert stream.read(0, 7).tolist() + stream.read(9, 3).tolist() == STREAM[:7] + STREAM[9:]
    assert stream.shard_tokens(2, 4).tolist() == STREAM[9:] and stream.documents(2).tolist() == [0, 2, 3, 7]
    for read in (lambda: stream.read(6, 2), lambda: stream.read(8, 1), lambda: stream.shard_tokens(2)):
        with pytest.raises(ValueError, match="shard2.bin is damaged: bytes 4..7"):
            read()


def test_damage_that_comes_while_the_file_is_open_is_found(tmp_path):
    stream = TokenStream(write_folder(tmp_path))
    assert stream.read(7, 2).tolist() == STREAM[7:9]
    flip_bit(tmp_path / "shard2.bin", 5)
    with pytest.raises(ValueError, match="shard2.bin is damaged: bytes 4..7"):
        stream.read(7, 1)


def test_damaged_digests_are_an_error_of_their_file(tmp_path):
    flip_bit(write_folder(tmp_path) / "shard2.sum", 1)
    with pytest.raises(ValueError, match="shard2.sum is damaged: its digests have digest .{16} but were written with"):
        TokenStream(tmp_path).read(5, 1)


def test_only_the_page_of_digests_that_is_needed_is_read(tmp_path):
    write_folder(tmp_path, shards=[[list(range(9)) * 500]])  # 2,250 blocks: 3 pages of digests
    flip_bit(tmp_path / "shard0.sum", 2 * 4096 + 3)
    stream = TokenStream(tmp_path)
    assert stream.read(0, 4096).tolist() == (list(range(9)) * 500)[:4096]
    with pytest.raises(ValueError, match="shard0.sum is damaged"):
        stream.read(4095, 2)


def test_a_damaged_index_is_refused(tmp_path):
    path = write_folder(tmp_path) / "shard2.idx"
    flip_bit(path, 34)  # the first document's length
    with pytest.raises(ValueError, match="shard2.idx is damaged: it has digest .{16} but was written with .{16}"):
        TokenStream(tmp_path).documents(2)


def test_a_folder_without_manifest_is_unfinished(tmp_path):
    with pytest.raises(FileNotFoundError, match="manifest.json is missing"):
        TokenStream(tmp_path)


@pytest.mark.parametrize(("vocab_size", "too_large"), [(10, 60_000), (100_000, 100_000), (100_000, -1)])
def test_an_id_outside_the_vocabulary_is_never_handed_out(tmp_path, vocab_size, too_large):
    write_folder(tmp_path, shards=[[[1, 2, 3, 9]]], vocab_size=vocab_size, block_bytes=8)
    path, dtype = tmp_path / "shard0.bin", token_dtype(vocab_size)
    tokens = np.fromfile(path, dtype)
    tokens[3] = too_large
    tokens.tofile(path)
    hasher = BlockHasher(8)
    hasher.update(tokens.tobytes())
    sums, sums_xxh3 = hasher.finish()
    (tmp_path / "shard0.sum").write_bytes(sums)
    shard = replace(read_manifest(tmp_path).shards[0], sums_xxh3=sums_xxh3)
    facts = {"tokenizer_digest": "sha256:t", "vocab_size": vocab_size, "end_token": "<end>", "end_token_id": 9}
    write_manifest(tmp_path, make_manifest([shard], **facts))
    stream = TokenStream(tmp_path)
    with pytest.raises(
        ValueError, match=f"{path} holds token id {too_large}, but vocab_size={vocab_size} in its manifest"
    ):
        stream.read(2, 2)
    assert stream.read(2, 1).tolist() == [3]  # only what is handed out is compared with the vocabulary
