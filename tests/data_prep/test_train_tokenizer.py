"""A trained tokenizer is of GPT-2's kind, or has whole words; it is reproducible, and loads in transformers."""

import pytest

from data_prep.encoding.coverage import coverage
from data_prep.encoding.end_token import find_end_token
from data_prep.encoding.tokenizer import END_TOKEN, load_tokenizer, vocab_size
from data_prep.train_tokenizer import list_words, main, save_tokenizer, train_tokenizer
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


WORDS = ["the cat <unk> the dog", "the cat\nsat <|endoftext|> \ud800"]


def ids_of(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def test_the_most_frequent_words_become_tokens_and_others_are_unknown(tmp_path):
    save_tokenizer(list_words(WORDS, vocab_size=4), tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.get_vocab() == {"<unk>": 0, "the": 1, "cat": 2, END_TOKEN: 3}
    assert ids_of(tokenizer, " the <unk> \n sat cat the\n") == [1, 0, 0, 2, 1]
    assert coverage(tokenizer).unknown_id == 0 and not coverage(tokenizer).drops_text


def test_without_a_number_all_words_become_tokens_frequent_ones_first(tmp_path, capsys):
    raw = write_raw_shard(tmp_path / "raw.jsonl", WORDS)
    assert main(["--input", str(raw), "--words", "--output", str(tmp_path / "words")]) == 0
    assert "7 tokens, <|endoftext|> is id 6" in capsys.readouterr().out
    tokenizer = load_tokenizer(tmp_path / "words")
    assert [tokenizer.id_to_token(id_) for id_ in range(7)] == [
        "<unk>",
        "the",
        "cat",
        "dog",
        "sat",
        "\ufffd",
        END_TOKEN,
    ]


def test_no_word_of_a_text_is_an_end_token(tmp_path):
    save_tokenizer(list_words(WORDS), tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert find_end_token(tmp_path, tokenizer) == END_TOKEN
    assert ids_of(tokenizer, f"the {END_TOKEN} cat") == [1, 0, 2]


def test_words_end_where_the_tokenizer_ends_them():
    text = " ".join(f"a{chr(code)}b" for code in [*range(0xD800), *range(0xE000, 0x3_0000)])
    assert 0 not in ids_of(list_words([text]), text)


def test_transformers_loads_a_dictionary_of_words(tmp_path):
    from transformers import AutoTokenizer

    save_tokenizer(list_words(WORDS), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("the mouse sat")["input_ids"] == [1, 0, 4]
    assert (tokenizer.eos_token, tokenizer.unk_token, tokenizer.decode([1, 2])) == (END_TOKEN, "<unk>", "the cat")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--words", "--vocab_size", "8"], "has only 5 words, which make 7 tokens, not --vocab_size 8"),
        (["--words", "--vocab_size", "2"], "--vocab_size 2 is below 3, for a word, <unk> and <|endoftext|>"),
        ([], "--vocab_size is missing; give the number of tokens, or --words for a dictionary of all words"),
    ],
)
def test_sizes_that_cannot_be_are_refused(tmp_path, capsys, options, message):
    raw = write_raw_shard(tmp_path / "raw.jsonl", WORDS)
    assert main(["--input", str(raw), *options, "--output", str(tmp_path / "words")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "words").exists()
