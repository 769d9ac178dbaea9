"""The options that `prepare` and `tokenize_shards` share: how text is read, and how the work is done."""

import argparse
from collections.abc import Callable

from data_prep.documents.document_rules import DOCUMENT_RULES, END_TOKEN_RULES, DocumentRules
from data_prep.encoding.make_encoder import AUTO, CHOICES, choose_backend
from data_prep.processes.worker_pool import workers_or_auto
from data_prep.tokenizing.bad_records import number_or_share
from data_prep.tokenizing.folder_plan import SHARD_BYTES_HELP, shard_bytes_of


def add_document_options(add: Callable[..., object]) -> None:
    """Add the options that say what is read, and by which rules."""
    add("--include", nargs="+", default=(), metavar="GLOB", help="read only these of folders and archives: '*.jsonl'")
    add("--tokenizer", required=True, metavar="DIR", help="folder with tokenizer.json")
    add("--text_field", default="text", help="field of .jsonl or column of .parquet with the text (default: text)")
    add(
        "--document_rule",
        choices=DOCUMENT_RULES,
        default="auto",
        help="what ends a document (auto: a blank line in .txt, each row of .jsonl and .parquet)",
    )
    add(
        "--lines_per_document",
        type=int,
        default=1,
        metavar="N",
        help="lines or rows per document with --document_rule line (default: 1)",
    )
    add(
        "--end_token_rule",
        choices=END_TOKEN_RULES,
        default="gpt2",
        help="gpt2: the end token follows every document (default); fairseq: it also replaces every newline",
    )
    add("--end_token", metavar="TEXT", help="token that ends documents (default: the tokenizer's own, eos_token)")


def add_work_options(add: Callable[..., object]) -> None:
    """Add the options that say how the text is tokenized."""
    add(
        "--workers",
        type=workers_or_auto,
        metavar="N",
        help="N processes, one token shard each at a time (default: auto, one per core)",
    )
    add("--backend", choices=CHOICES, default=AUTO, help="library that encodes; the ids are the same (default: auto)")
    add("--shard_bytes", type=shard_bytes_of, metavar="N", help=SHARD_BYTES_HELP)
    add(
        "--max_bad_records",
        type=number_or_share,
        default=0,
        metavar="N",
        help="skip up to N unreadable records per folder, or a share of all documents such as 1e-6 (default: 0)",
    )
    add("--extend", action="store_true", help="append text of which --output has no tokens yet")
    add("--keep_going", action="store_true", help="report all files that cannot be read at the end, not just the first")
    add("--overwrite", action="store_true", help="tokenize again, in place of the token shards in --output")


def rules_of(arguments: argparse.Namespace) -> DocumentRules:
    """Return the rules that add_document_options describes."""
    return DocumentRules(
        arguments.text_field,
        arguments.document_rule,
        arguments.lines_per_document,
        arguments.end_token_rule,
        arguments.include,
    )


def print_backend(arguments: argparse.Namespace) -> str:
    """Return the backend to encode with, and print why."""
    choice = choose_backend(arguments.tokenizer, arguments.backend)
    print(choice, flush=True)
    return choice.backend
