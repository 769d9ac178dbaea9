"""Text never becomes a special token, and a tokenizer's digest changes if and only if ids may change."""

import json

import pytest
from tokenizers import Tokenizer, models

from data_prep.encoding.reference import ReferenceEncoder
from data_prep.encoding.tokenizer import load_tokenizer, tokenizer_digest, vocab_size, without_surrogates


def encode(tokenizer, documents):
    """Return the ids of all documents, concatenated."""
    return ReferenceEncoder(tokenizer).encode(documents)[0].tolist()


def test_a_literal_end_token_in_text_is_ordinary_text(tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    ids = encode(tokenizer, ["a<|endoftext|>b"])
    assert 259 not in ids
    assert tokenizer.decode(ids) == "a<|endoftext|>b"


def test_a_lone_surrogate_becomes_the_replacement_character(tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    assert encode(tokenizer, ["a\ud800b"]) == encode(tokenizer, ["a\ufffdb"])


def test_a_pair_of_surrogates_becomes_its_character():
    assert without_surrogates("\ud83d\ude00") == "\U0001f600"


def test_padding_and_truncation_change_neither_ids_nor_digest(tokenizer_folder, tmp_path):
    plain = load_tokenizer(tokenizer_folder)
    cutting = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    cutting.enable_truncation(2)
    cutting.enable_padding(length=8)
    cutting.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path)
    assert tokenizer_digest(cutting) == tokenizer_digest(loaded) == tokenizer_digest(plain)
    assert encode(loaded, ["abcdef"]) == encode(plain, ["abcdef"])


def test_another_merge_changes_the_digest(tokenizer_folder, tmp_path):
    description = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    description["model"]["merges"].pop()
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    digest = tokenizer_digest(load_tokenizer(tmp_path))
    assert digest.startswith("sha256:") and len(digest) == 7 + 64
    assert digest != tokenizer_digest(load_tokenizer(tokenizer_folder))


def test_vocabulary_and_merges_give_the_same_ids_as_tokenizer_json(tokenizer_folder, tmp_path, documents):
    whole = load_tokenizer(tokenizer_folder)
    whole.model.save(str(tmp_path))
    parts = load_tokenizer(tmp_path)
    assert vocab_size(parts) == vocab_size(whole) == 260
    assert encode(parts, documents) == encode(whole, documents)


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has neither tokenizer.json nor vocab.json and merges.txt"):
        load_tokenizer(tmp_path)


def test_a_damaged_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="tokenizer.json cannot be loaded by the tokenizers library"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("id_", [2**24, 3_000_000_000])
def test_an_id_that_would_fill_the_memory_is_named(tokenizer_folder, tmp_path, id_):
    description = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    description["model"]["vocab"]["far"] = id_
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=f"gives token 'far' the id {id_}, above 16777215; number it lower"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_tokens_is_refused(tmp_path):
    Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="holds a tokenizer without tokens"):
        load_tokenizer(tmp_path)
