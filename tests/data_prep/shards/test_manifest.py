"""The manifest sums up the shards, identifies the corpus, and is refused after any change."""

import pytest

from data_prep.shards.manifest import read_manifest, token_dtype
from tests.data_prep.shards.test_token_stream import SHARDS, edit_manifest, write_folder


def test_the_manifest_sums_up_the_shards(tmp_path):
    manifest = read_manifest(write_folder(tmp_path))
    assert (manifest.num_tokens, manifest.num_documents, manifest.dtype, manifest.end_token_id) == (12, 5, "uint16", 9)
    assert [(shard.num_tokens, shard.num_documents) for shard in manifest.shards] == [(5, 2), (0, 0), (7, 3)]


def test_the_corpus_digest_follows_tokens_borders_and_tokenizer(tmp_path):
    variants = {"same": SHARDS, "token": [[[1, 2, 9], [4, 9]]], "border": [[[1, 2, 9, 3, 9]]], "none": [[]]}
    variants |= {"moved border": [[[1], [2, 9, 3, 9], *SHARDS[0][2:]], *SHARDS[1:]]}
    digests = {
        name: read_manifest(write_folder(tmp_path / name, shards=s)).corpus_digest for name, s in variants.items()
    }
    assert len(set(digests.values())) == len(variants)
    assert read_manifest(write_folder(tmp_path / "again")).corpus_digest == digests["same"]


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65499, "uint16"), (65500, "int32")])
def test_tokens_take_two_bytes_if_megatron_stores_them_in_two(vocab_size, dtype):
    assert token_dtype(vocab_size) == dtype


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda values: values.update(schema_version=1),
            "schema_version 1, this code reads 2; run data_prep.tokenize_shards again",
        ),
        (lambda values: values.pop("dtype"), r"wrong fields: \['dtype'\]"),
        (lambda values: values.update(colour="red"), r"wrong fields: \['colour'\]"),
        (lambda values: values["shards"][0].pop("block_bytes"), r"wrong fields: \['block_bytes'\]"),
        (lambda values: values["shards"].reverse(), "its shards give sha256:"),
        (lambda values: values["shards"][0].update(index_xxh3="0" * 16), "its shards give sha256:"),
        (lambda values: values["shards"][0].update(sums_xxh3="0" * 32), "its shards give sha256:"),
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


@pytest.mark.parametrize("content", ["", "[", "[]", "{}"])
def test_a_manifest_that_is_something_else_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match="manifest.json is damaged"):
        read_manifest(tmp_path)
