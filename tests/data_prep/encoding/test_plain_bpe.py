"""Only a tokenizer of GPT-2's kind, which a fast backend can reproduce, is read as plain BPE."""

import json

import pytest
from tokenizers import Tokenizer

from data_prep.encoding.plain_bpe import plain_bpe
from data_prep.encoding.tokenizer import END_TOKEN, load_tokenizer


@pytest.fixture
def description(tokenizer_folder):
    return json.loads((tokenizer_folder / "tokenizer.json").read_text())


def load(description):
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.encode_special_tokens = True
    return tokenizer


def set_merges(description, *merges):
    """Give `description` these merges, with ids from 256 on."""
    model = description["model"]
    model["vocab"] = {token: id_ for token, id_ in model["vocab"].items() if id_ < 256}
    model["vocab"] |= {left + right: 256 + number for number, (left, right) in enumerate(merges)}
    model["merges"] = [list(pair) for pair in merges]
    description["added_tokens"] = []


def test_tokens_are_all_bytes_and_the_results_of_merges(tokenizer_folder):
    bpe = plain_bpe(load_tokenizer(tokenizer_folder))
    ids = bpe.ids_of_bytes()
    assert len(bpe.merges) == 3
    assert sorted(ids.values()) == list(range(259))
    assert {bytes([byte]) for byte in range(256)} <= set(ids)
    assert END_TOKEN.encode() not in ids


@pytest.mark.parametrize(
    "part, change, reason",
    [
        ("normalizer", {"type": "NFC"}, "has a normalizer, NFC"),
        ("pre_tokenizer", None, "splits words by the pre-tokenizer .*none"),
        ("pre_tokenizer", {"type": "Whitespace"}, "splits words by the pre-tokenizer .*Whitespace"),
        (
            "pre_tokenizer",
            {"use_regex": False},
            "splits words by the pre-tokenizer ByteLevel without use_regex, not by GPT-2's pattern",
        ),
        ("pre_tokenizer", {"add_prefix_space": True}, "puts a space before each text"),
        ("model", {"dropout": 0.1}, "has dropout=0.1"),
        ("model", {"unk_token": "!"}, "has unk_token='!'"),
        ("model", {"byte_fallback": True}, "has byte_fallback=True"),
        ("model", {"ignore_merges": True}, "has ignore_merges=True"),
    ],
)
def test_a_part_unlike_gpt2_is_named(description, part, change, reason):
    is_whole = change is None or "type" in change
    description[part] = change if is_whole else {**description[part], **change}
    with pytest.raises(ValueError, match=reason):
        plain_bpe(load(description))


def test_a_model_of_another_type_is_named(description):
    description["model"] = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    with pytest.raises(ValueError, match="is a WordLevel model, not BPE"):
        plain_bpe(load(description))


def test_an_added_token_that_is_found_in_text_is_named(description):
    description["added_tokens"][0]["special"] = False
    with pytest.raises(ValueError, match="finds its added token '<|endoftext|>' in text"):
        plain_bpe(load(description))


def test_a_missing_byte_is_named(description):
    set_merges(description)
    del description["model"]["vocab"]["A"]
    with pytest.raises(ValueError, match="has no token for byte 65"):
        plain_bpe(load(description))


def test_merges_out_of_the_order_of_ids_are_named(description):
    set_merges(description, ("a", "b"), ("c", "d"))
    description["model"]["merges"].reverse()
    with pytest.raises(ValueError, match="merges 'a' and 'b' to id 256 after id 257"):
        plain_bpe(load(description))


def test_a_token_that_its_own_bytes_do_not_produce_is_named(description):
    # "abc" becomes "ab", "c"; a backend that joins any two parts whose concatenation is a token would join them.
    set_merges(description, ("a", "b"), ("b", "c"), ("a", "bc"))
    with pytest.raises(ValueError, match=r"encodes its own token 'abc', id 258, as ids \[256, [0-9]+\]"):
        plain_bpe(load(description))


def test_a_byte_level_tokenizer_with_any_merges_is_accepted(description):
    set_merges(description, ("a", "b"), ("ab", "c"), ("\u0120", "abc"))
    assert plain_bpe(load(description)).ids_of_bytes()[b" abc"] == 258
