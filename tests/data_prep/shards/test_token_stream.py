"""Token shards are read as one stream, by Megatron and nanoGPT as well, and damage is noticed."""

import json
import pickle
import struct
from dataclasses import replace

import numpy as np
import pytest
import xxhash

from data_prep.shards.manifest import KIND, make_manifest, read_manifest, write_manifest
from data_prep.shards.token_stream import ShardWriter, TokenStream, token_dtype
from data_prep.storage.sealed_json import sealed_json, unsealed
from tests.damage import damages, flip_bit

SHARDS = [[[1, 2, 9], [3, 9]], [], [[4, 9], [9], [5, 6, 7, 9]]]  # documents of three shards, the second is empty
STREAM = [1, 2, 9, 3, 9, 4, 9, 9, 5, 6, 7, 9]
BLOCK_BYTES = 4  # two tokens: 3, 0 and 4 blocks


def write_folder(folder, *, shards=SHARDS, vocab_size=10, block_bytes=BLOCK_BYTES):
    entries = []
    for number, documents in enumerate(shards):
        options = {"source": f"raw/{number}.txt", "vocab_size": vocab_size, "block_bytes": block_bytes}
        with ShardWriter(folder, f"shard{number}", **options) as writer:
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
    stream = TokenStream(write_folder(tmp_path, shards=[[[5] * 10_000]], block_bytes=2**23))
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
    variants |= {"moved border": [[[1], [2, 9, 3, 9], *SHARDS[0][2:]], *SHARDS[1:]]}
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


def read_everything(folder):
    stream = TokenStream(folder)
    for shard in range(len(stream.manifest.shards)):
        stream.documents(shard)
    return stream.read(0, stream.num_tokens).tolist()


def test_a_thousand_flipped_bits_and_truncations_are_all_noticed(tmp_path):
    write_folder(tmp_path)
    for path in damages(sorted(tmp_path.iterdir()), number=1000):
        with pytest.raises(ValueError, match=path.name):
            read_everything(tmp_path)
    assert read_everything(tmp_path) == STREAM


def test_each_block_has_the_digest_of_its_bytes_however_documents_lie_in_them(tmp_path):
    content = np.array(SHARDS[2][0] + SHARDS[2][1] + SHARDS[2][2], dtype="<u2").tobytes()
    blocks = [content[:6], content[6:12], content[12:]]
    shard = read_manifest(write_folder(tmp_path, block_bytes=6)).shards[2]
    assert shard.block_xxh3 == tuple(xxhash.xxh3_64_hexdigest(block) for block in blocks)
    assert shard.index_xxh3 == xxhash.xxh3_64_hexdigest((tmp_path / "shard2.idx").read_bytes())


def test_damage_is_told_with_the_file_its_bytes_and_both_digests(tmp_path):
    path = write_folder(tmp_path) / "shard2.bin"
    written = xxhash.xxh3_64_hexdigest(path.read_bytes()[4:8])
    flip_bit(path, 5)
    found = xxhash.xxh3_64_hexdigest(path.read_bytes()[4:8])
    message = f"{path} is damaged: bytes 4..7 have digest {found} but were written with {written}"
    for _ in range(2):  # the block is no better when it is tried again
        with pytest.raises(ValueError, match=message):
            TokenStream(tmp_path).read(8, 1)


def test_damage_outside_of_what_is_read_stops_nobody(tmp_path):
    write_folder(tmp_path)
    flip_bit(tmp_path / "shard2.bin", 5)  # tokens 7 and 8 of the stream
    flip_bit(tmp_path / "shard0.idx", 40)
    stream = TokenStream(tmp_path)
    assert stream.read(0, 7).tolist() + stream.read(9, 3).tolist() == STREAM[:7] + STREAM[9:]
    assert stream.shard_tokens(2, 4).tolist() == STREAM[9:] and stream.documents(2).tolist() == [0, 2, 3, 7]
    for read in (lambda: stream.read(6, 2), lambda: stream.read(8, 1), lambda: stream.shard_tokens(2)):
        with pytest.raises(ValueError, match="shard2.bin is damaged: bytes 4..7"):
            read()


def test_a_block_is_compared_once(tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr("data_prep.shards.blocks.check_block", lambda path, _, block, __: checked.append(block))
    stream = TokenStream(write_folder(tmp_path))
    for _ in range(2):
        stream.read(6, 3)
        stream.read(9, 3)
    assert checked == [0, 1, 2, 3]


def test_a_damaged_index_is_refused(tmp_path):
    path = write_folder(tmp_path) / "shard2.idx"
    flip_bit(path, 34)  # the first document's length
    with pytest.raises(ValueError, match="shard2.idx is damaged: it has digest .{16} but was written with .{16}"):
        TokenStream(tmp_path).documents(2)


def test_a_folder_without_manifest_is_unfinished(tmp_path):
    with pytest.raises(FileNotFoundError, match="manifest.json is missing"):
        TokenStream(tmp_path)


def edit_manifest(folder, change):
    """Change the manifest as a program would that knows its format."""
    path = folder / "manifest.json"
    values = unsealed(path.read_bytes(), kind=KIND)
    change(values)
    path.write_bytes(sealed_json(values, kind=KIND))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(schema_version=4), "schema_version 4, this code reads 3"),
        (lambda values: values.pop("dtype"), r"wrong fields: \['dtype'\]"),
        (lambda values: values.update(colour="red"), r"wrong fields: \['colour'\]"),
        (lambda values: values["shards"][0].pop("block_bytes"), r"wrong fields: \['block_bytes'\]"),
        (lambda values: values["shards"].reverse(), "its shards give sha256:"),
        (lambda values: values["shards"][0].update(index_xxh3="0"), "its shards give sha256:"),
        (lambda values: values["shards"][0]["block_xxh3"].reverse(), "its shards give sha256:"),
    ],
)
def test_a_manifest_of_another_program_is_refused(tmp_path, change, message):
    edit_manifest(write_folder(tmp_path), change)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path)


def test_an_edited_manifest_is_refused(tmp_path):
    path = write_folder(tmp_path) / "manifest.json"
    path.write_text(path.read_text().replace('"vocab_size": 10', '"vocab_size": 11'))
    with pytest.raises(ValueError, match="manifest.json is damaged: its content has digest .{32}, but it begins with "):
        read_manifest(tmp_path)


def test_version_2_had_no_skipped_records_and_is_read(tmp_path):
    def as_version_2(values):
        values |= {"schema_version": 2, "end_token_rule": values.pop("rules")["end_token_rule"]}
        for shard in values["shards"]:
            del shard["skipped"]

    folder = write_folder(tmp_path)
    shards = read_manifest(folder).shards
    edit_manifest(folder, as_version_2)
    assert read_manifest(folder).shards == shards


def test_token_shards_of_version_1_are_to_be_made_again(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"schema_version": 1, "shards": []}))
    with pytest.raises(ValueError, match="schema_version 1, this code reads 3; run data_prep.tokenize_shards again"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", ["", "[", "[]", "{}"])
def test_a_manifest_that_is_something_else_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match="manifest.json is damaged"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(("vocab_size", "too_large"), [(10, 60_000), (100_000, 100_000), (100_000, -1)])
def test_an_id_outside_the_vocabulary_is_named_when_its_block_is_touched(tmp_path, vocab_size, too_large):
    write_folder(tmp_path, shards=[[[1, 2, 3, 9]]], vocab_size=vocab_size, block_bytes=8)
    path, dtype = tmp_path / "shard0.bin", token_dtype(vocab_size)
    tokens = np.fromfile(path, dtype)
    tokens[3] = too_large
    tokens.tofile(path)
    length = 8 // tokens.itemsize
    digests = [xxhash.xxh3_64_hexdigest(tokens[start : start + length]) for start in range(0, 4, length)]
    shard = replace(read_manifest(tmp_path).shards[0], block_xxh3=tuple(digests))
    facts = {"tokenizer_digest": "sha256:t", "vocab_size": vocab_size, "end_token_id": 9}
    write_manifest(tmp_path, make_manifest([shard], **facts))
    stream = TokenStream(tmp_path)
    with pytest.raises(
        ValueError, match=f"{path} holds token id {too_large}, but vocab_size={vocab_size} in its manifest"
    ):
        stream.read(2, 1)
