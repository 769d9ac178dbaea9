"""Text that a tokenizer cannot spell is counted as unknown tokens, or ends the command; none is lost silently."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from data_prep.encoding.coverage import coverage
from data_prep.encoding.make_encoder import make_encoder
from data_prep.encoding.tokenizer import load_tokenizer
from tests.data_prep.encoding.tokenizer_kinds import END_TOKENS, write_tokenizer

LETTERS = {letter: id_ for id_, letter in enumerate("abc")}
WORDS = {"<unk>": 0, "a": 1, "b": 2}


def saved(folder, model, words=None):
    """Save a tokenizer of this model; return its folder."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = words
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def edited(folder, source, change):
    """Save a copy of the tokenizer in `source` after `change` of its description; return its folder."""
    description = json.loads((source / "tokenizer.json").read_text())
    change(description)
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(description))
    return folder


@pytest.mark.parametrize("kind", END_TOKENS)
def test_tokenizers_with_all_bytes_spell_every_text(tmp_path, kind):
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, kind))
    assert coverage(tokenizer).is_complete and coverage(tokenizer).unknown_id is None
    text = "жлш \U0001f600 " + "".join(map(chr, range(300)))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    ("model", "unknown"),
    [
        (models.WordLevel(WORDS, "<unk>"), 0),
        (models.WordPiece(WORDS, unk_token="<unk>"), 0),
        (models.BPE({**LETTERS, "<unk>": 3}, [], unk_token="<unk>"), 3),
        (models.Unigram([("a", 0.0), ("?", -1.0)], 1), 1),
    ],
    ids=["words", "pieces", "bpe", "unigram"],
)
def test_an_unknown_token_stands_for_text_without_tokens(tmp_path, model, unknown):
    folder = saved(tmp_path, model, pre_tokenizers.Whitespace())
    found = coverage(load_tokenizer(folder))
    assert not found.is_complete and found.unknown_id == unknown and not found.drops_text
    ids, _ = make_encoder(folder, "tokenizers").encode(["a ж a"])
    assert (ids == unknown).sum() == 1


@pytest.mark.parametrize("pre_tokenizer", [None, pre_tokenizers.Metaspace()], ids=["plain", "metaspace"])
def test_characters_that_would_be_dropped_end_the_command_with_their_number(tmp_path, pre_tokenizer):
    vocabulary = {**LETTERS, "▁": 3} if pre_tokenizer else LETTERS
    encoder = make_encoder(saved(tmp_path, models.BPE(vocabulary, []), pre_tokenizer), "tokenizers")
    assert encoder.encode(["abc cab"])[1].sum() >= 6  # a space is no loss
    with pytest.raises(ValueError) as caught:
        encoder.encode(["abc", "жжaл" * 100])
    assert "no token for 2 of the text's characters" in (message := str(caught.value))
    assert "300 of 403 characters, such as 'ж' (200 times), 'л' (100 times); use a tokenizer" in message


def test_a_part_of_a_character_is_not_dropped_either(tmp_path, tokenizer_folder):
    def without_a_byte(description):
        del description["model"]["vocab"]["©"]  # byte 0xA9, the second of é

    folder = edited(tmp_path / "some_bytes", tokenizer_folder, without_a_byte)
    encoder = make_encoder(folder, "tokenizers")
    assert len(encoder.encode(["cafè"])[0]) == 5
    with pytest.raises(ValueError, match="'é'"):
        encoder.encode(["café"])


def test_an_incomplete_fallback_is_no_fallback(tmp_path):
    def without_a_byte(description):
        del description["model"]["vocab"]["<0xA9>"]

    folder = edited(tmp_path / "some_bytes", write_tokenizer(tmp_path / "gemma", "gemma"), without_a_byte)
    tokenizer = load_tokenizer(folder)
    assert coverage(tokenizer).unknown_id == tokenizer.token_to_id("<unk>")


def test_a_model_without_unknown_token_names_the_problem(tmp_path):
    encoder = make_encoder(saved(tmp_path, models.WordLevel({"a": 0}, "none")), "tokenizers")
    with pytest.raises(ValueError, match="the tokenizer cannot encode a text: .*; give it an unknown token"):
        encoder.encode(["b"])
