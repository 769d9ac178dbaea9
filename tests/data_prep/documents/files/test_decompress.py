"""Compressed files are read to their verified end, and nothing that is missing or damaged goes unnoticed."""

import lzma

import pytest
import zstandard

from data_prep.documents.files.decompress import DamagedShard, decompressed
from tests.data_prep.documents.raw_shards import COMPRESSED, COMPRESSORS, documents_of, write_raw_shard


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_consecutive_streams_are_one_text(tmp_path, suffix):
    compress, path = COMPRESSORS[suffix], tmp_path / f"shard.txt{suffix}"
    path.write_bytes(compress(b"one\n\ntw") + compress(b"") + compress(b"o\n"))
    assert documents_of(path) == ["one", "two"]


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("num_missing", [1, 9, 60])
def test_a_truncated_file_is_refused_with_its_name_and_length(tmp_path, suffix, num_missing):
    path = write_raw_shard(tmp_path / f"shard.txt{suffix}", [f"document {i * i}" for i in range(500)])
    path.write_bytes(path.read_bytes()[:-num_missing])
    with pytest.raises(
        DamagedShard, match=f"shard.txt{suffix} is damaged near byte {path.stat().st_size}: the file ends"
    ):
        documents_of(path)


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_truncated_second_stream_is_refused(tmp_path, suffix):
    compress, path = COMPRESSORS[suffix], tmp_path / f"shard.txt{suffix}"
    path.write_bytes(compress(b"one\n\n") + compress(b"two\n")[:-1])
    with pytest.raises(DamagedShard, match="the file ends before its content does"):
        documents_of(path)


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("content", [b"", b"\0" * 64])
def test_an_empty_or_zeroed_compressed_file_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"shard.txt{suffix}"
    path.write_bytes(content)
    with pytest.raises(DamagedShard, match="near byte 0"):
        documents_of(path)


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_flipped_byte_is_refused(tmp_path, suffix):
    path = write_raw_shard(tmp_path / f"shard.txt{suffix}", [f"document {i * i}" for i in range(500)])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(DamagedShard, match=f"shard.txt{suffix} is damaged near byte"):
        documents_of(path)


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_garbage_after_a_stream_is_refused(tmp_path, suffix):
    path = tmp_path / f"shard.txt{suffix}"
    path.write_bytes(COMPRESSORS[suffix](b"one\n") + b"not compressed")
    with pytest.raises(DamagedShard):
        documents_of(path)


def test_the_padding_that_xz_allows_is_skipped(tmp_path):
    path = tmp_path / "shard.txt.xz"
    path.write_bytes(lzma.compress(b"one\n\n") + bytes(4) + lzma.compress(b"two\n") + bytes(8))
    assert documents_of(path) == ["one", "two"]


def test_repetitive_content_is_decompressed_in_blocks():
    compressed = COMPRESSORS[".zst"](bytes(2**27))
    assert len(compressed) < 2**13  # one block of a file
    sizes = [len(part) for part in decompressed("shard", iter([compressed]), ".zst")]
    assert sum(sizes) == 2**27
    assert max(sizes) == 2**18


def test_a_window_above_the_limit_is_refused_with_what_to_do():
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=22)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    contents = {".zst": compressor.compress(b"one") + compressor.flush(), ".xz": lzma.compress(b"one", preset=9)}
    for suffix, content in contents.items():
        assert b"".join(decompressed("shard", iter([content]), suffix)) == b"one"
        with pytest.raises(
            ValueError, match="shard needs more than 2 MiB of memory .* compress it again with a smaller"
        ):
            list(decompressed("shard", iter([content]), suffix, largest_window=2**21))


def test_a_zst_that_needs_a_dictionary_is_not_called_damaged():
    dictionary = zstandard.train_dictionary(1000, [f"line {i} of a text".encode() * 3 for i in range(2000)])
    content = zstandard.ZstdCompressor(dict_data=dictionary).compress(b"a line of a text" * 9)
    with pytest.raises(ValueError, match="shard needs the dictionary that it was compressed with; compress it again"):
        list(decompressed("shard", iter([content]), ".zst"))
