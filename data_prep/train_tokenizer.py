"""Train a tokenizer of GPT-2's kind: `python -m data_prep.train_tokenizer --input PATH --vocab_size N --output DIR`."""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.raw_shards import find_raw_shards, read_documents
from data_prep.encoding.tokenizer import END_TOKEN, byte_level, without_surrogates
from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.storage.atomic_file import atomic_file

SMALLEST_VOCABULARY = 256 + 1  # every byte, and the end token


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    rules = DocumentRules(arguments.text_field, include=arguments.include)
    raw_shards = find_raw_shards(arguments.input, text_field=rules.text_field, include=rules.include)
    documents = (document for raw_shard in raw_shards for document in read_documents(raw_shard, rules))
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


def save_tokenizer(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write tokenizer.json and tokenizer_config.json; transformers.AutoTokenizer.from_pretrained(folder) reads them."""
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "bos_token": END_TOKEN,
        "eos_token": END_TOKEN,
        "unk_token": END_TOKEN,
    }
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
    add("--vocab_size", type=int, required=True, metavar="N", help=f"number of tokens, {END_TOKEN} included")
    add("--text_field", default="text", help="field of .jsonl or column of .parquet with the text (default: text)")
    add("--output", required=True, metavar="DIR", help="folder to write the tokenizer to")
    return parser


if __name__ == "__main__":
    sys.exit(main())
