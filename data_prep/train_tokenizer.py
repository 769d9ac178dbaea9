"""Train a tokenizer of GPT-2's kind, or list words: `python -m data_prep.train_tokenizer --input PATH --output DIR`.

By default it learns byte-level BPE of --vocab_size tokens. With --words each word between spaces is a token, all other
words are <unk>, and spaces and newlines are not kept: the dictionaries of WikiText-103 are like that.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.raw_shards import find_raw_shards, read_documents
from data_prep.encoding.tokenizer import END_TOKEN, byte_level, without_surrogates
from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.storage.atomic_file import atomic_file

SMALLEST_VOCABULARY = 256 + 1  # every byte, and the end token
UNKNOWN_WORD = "<unk>"  # WikiText writes it in place of rare words
_GPT2 = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False}
_WORD = re.compile(r"[\S\x1c-\x1f]+")  # as WhitespaceSplit does it; Python alone counts these four as spaces


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    rules = DocumentRules(arguments.text_field, include=arguments.include)
    raw_shards = find_raw_shards(arguments.input, text_field=rules.text_field, include=rules.include)
    documents = (document for raw_shard in raw_shards for document in read_documents(raw_shard, rules))
    if arguments.words:
        tokenizer = list_words(documents, vocab_size=arguments.vocab_size)
    elif arguments.vocab_size is None:
        raise ValueError("--vocab_size is missing; give the number of tokens, or --words for a dictionary of all words")
    else:
        tokenizer = train_tokenizer(documents, vocab_size=arguments.vocab_size)
    save_tokenizer(tokenizer, arguments.output)
    end_id = tokenizer.token_to_id(END_TOKEN)
    print(f"{tokenizer.get_vocab_size():,} tokens, {END_TOKEN} is id {end_id} -> {arguments.output}")


def train_tokenizer(documents: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Learn byte-level BPE merges; the end token comes last, as in GPT-2. ValueError if the text is too short."""
    if vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(
            f"--vocab_size {vocab_size} is below {SMALLEST_VOCABULARY}, for 256 bytes and {END_TOKEN}; raise it"
        )
    tokenizer = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=sys.stderr.isatty(),
    )
    tokenizer.train_from_iterator((without_surrogates(document) for document in documents), trainer)
    tokenizer.add_special_tokens([END_TOKEN])
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(
            f"the text yields only {tokenizer.get_vocab_size()} tokens, not --vocab_size {vocab_size}; "
            "give more text or a smaller vocabulary"
        )
    return tokenizer


def list_words(documents: Iterable[str], *, vocab_size: int | None = None) -> Tokenizer:
    """Make a token of each of the most frequent words, or of all; <unk> comes first and the end token last.

    A text that contains the end token's characters gets <unk> for them. ValueError if there are too few words.
    """
    if vocab_size is not None and vocab_size < 3:
        raise ValueError(f"--vocab_size {vocab_size} is below 3, for a word, {UNKNOWN_WORD} and {END_TOKEN}; raise it")
    counts = Counter(word for document in documents for word in _WORD.findall(without_surrogates(document)))
    words = sorted(counts.keys() - {UNKNOWN_WORD, END_TOKEN}, key=lambda word: (-counts[word], word))
    if len(words) + 2 < (vocab_size or 3):
        raise ValueError(
            f"the text has only {len(words)} words, which make {len(words) + 2} tokens, not --vocab_size {vocab_size}; "
            "give more text, or leave --vocab_size out for all words"
        )
    words = words[: None if vocab_size is None else vocab_size - 2]
    vocabulary = {word: id_ for id_, word in enumerate([UNKNOWN_WORD, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, UNKNOWN_WORD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([END_TOKEN])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write tokenizer.json and tokenizer_config.json; transformers.AutoTokenizer.from_pretrained(folder) reads them."""
    has_words = isinstance(tokenizer.model, models.WordLevel)
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"} if has_words else _GPT2
    unknown = UNKNOWN_WORD if has_words else END_TOKEN
    config = {**kind, "bos_token": END_TOKEN, "eos_token": END_TOKEN, "unk_token": unknown}
    _write(Path(folder) / "tokenizer.json", tokenizer.to_str(pretty=True))
    _write(Path(folder) / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as file:
        file.write(text.encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.train_tokenizer", description=__doc__)
    add = parser.add_argument
    add(
        "--input",
        nargs="+",
        required=True,
        metavar="PATH",
        help="raw shards, folders, globs, URLs, or hf:NAME",
    )
    add("--include", nargs="+", default=(), metavar="GLOB", help="read only these of folders and archives: '*.jsonl'")
    add("--vocab_size", type=int, metavar="N", help=f"number of tokens, {END_TOKEN} included; needed without --words")
    add("--words", action="store_true", help="make tokens of the most frequent words, or of all without --vocab_size")
    add("--text_field", default="text", help="field of .jsonl or column of .parquet with the text (default: text)")
    add("--output", required=True, metavar="DIR", help="folder to write the tokenizer to")
    return parser


if __name__ == "__main__":
    sys.exit(main())
