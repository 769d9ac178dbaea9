"""A trained tokenizer is of GPT-2's kind, is reproducible, and loads in transformers."""

import pytest

from data_prep.encoding.tokenizer import END_TOKEN, load_tokenizer, vocab_size
from data_prep.train_tokenizer import main, train_tokenizer
from tests.data_prep.documents.raw_shards import write_raw_shard


def test_transformers_loads_it_and_gives_the_same_ids(tokenizer_folder, documents):
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(tokenizer_folder), load_tokenizer(tokenizer_folder)
    assert [theirs(document)["input_ids"] for document in documents] == [ours.encode(d).ids for d in documents]
    assert (theirs.eos_token, theirs.eos_token_id, theirs.bos_token_id, len(theirs)) == (END_TOKEN, 259, 259, 260)


def test_any_text_is_decoded_from_its_ids(tokenizer_folder):
    text = " Unheard-of: \t日本語 \U0001f600\n\n  x"
    tokenizer = load_tokenizer(tokenizer_folder)
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_command_is_reproducible(tmp_path, documents, capsys):
    raw = write_raw_shard(tmp_path / "raw.jsonl", documents * 3)
    for name in ("one", "two"):
        assert main(["--input", str(raw), "--vocab_size", "270", "--output", str(tmp_path / name)]) == 0
    assert "270 tokens, <|endoftext|> is id 269" in capsys.readouterr().out
    assert (tmp_path / "one" / "tokenizer.json").read_bytes() == (tmp_path / "two" / "tokenizer.json").read_bytes()
    assert vocab_size(load_tokenizer(tmp_path / "one")) == 270


def test_a_vocabulary_below_the_bytes_is_refused(documents):
    with pytest.raises(ValueError, match="--vocab_size 256 is below 257"):
        train_tokenizer(documents, vocab_size=256)


def test_too_little_text_is_refused_with_both_sizes():
    with pytest.raises(ValueError, match="the text yields only 258 tokens, not --vocab_size 300"):
        train_tokenizer(["aa\naa"], vocab_size=300)
