"""Token shards are files that Megatron and nanoGPT read, with a digest of every block."""

import struct

import numpy as np
import pytest
import xxhash

from data_prep.shards.manifest import read_manifest
from tests.data_prep.shards.test_token_stream import SHARDS, write_folder


def read_megatron_index(path):
    """Read an .idx by the description of the format alone."""
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


@pytest.mark.parametrize("ids", [[0, 10], [-1, 9]])
def test_a_token_outside_the_vocabulary_leaves_no_file(tmp_path, ids):
    with pytest.raises(ValueError, match=rf"token ids {ids[0]}..{ids[1]} do not fit vocab_size=10"):
        write_folder(tmp_path, shards=[[[1, 9], ids]])
    assert list(tmp_path.iterdir()) == []


def test_each_block_has_the_digest_of_its_bytes_whatever_documents_it_cuts(tmp_path):
    content = np.array(SHARDS[2][0] + SHARDS[2][1] + SHARDS[2][2], dtype="<u2").tobytes()
    blocks = [content[:6], content[6:12], content[12:]]
    shard = read_manifest(write_folder(tmp_path, block_bytes=6)).shards[2]
    page = b"".join(struct.pack("<I", xxhash.xxh3_64_intdigest(block) % 2**32) for block in blocks)
    root = struct.pack("<Q", xxhash.xxh3_64_intdigest(page))
    assert (tmp_path / "shard2.sum").read_bytes() == page + root
    assert shard.sums_xxh3 == xxhash.xxh3_128_hexdigest(root)
    assert shard.index_xxh3 == xxhash.xxh3_64_hexdigest((tmp_path / "shard2.idx").read_bytes())
