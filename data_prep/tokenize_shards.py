"""Turn raw shards into token shards: `python -m data_prep.tokenize_shards --input PATH --tokenizer DIR --output DIR`.

Small raw shards are joined into token shards, and large .txt and .jsonl files are cut. The bytes written do not depend
on the number of processes. Under an MPI launcher the ranks divide the token shards:
`mpirun -n N python -m data_prep.tokenize_shards ...`.
If the command is killed, the same command keeps the finished token shards and writes the others.
"""

import argparse
import sys
import time
from collections.abc import Callable

from data_prep.documents.document_rules import DOCUMENT_RULES, END_TOKEN_RULES, DocumentRules
from data_prep.encoding.make_encoder import AUTO, CHOICES, choose_backend
from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.processes.mpi_ranks import find_ranks, ranks_end_together
from data_prep.processes.worker_pool import workers_or_auto
from data_prep.tokenizing.bad_records import number_or_share
from data_prep.tokenizing.folder_plan import SHARD_BYTES_HELP, shard_bytes_of
from data_prep.tokenizing.summary import source_table, summary, warnings
from data_prep.tokenizing.tokenize_folder import tokenize_folder


@ranks_end_together
@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    ranks = find_ranks()
    backend = ranks.broadcast(_backend(arguments) if ranks.rank == 0 else None)
    start = time.perf_counter()
    manifest = tokenize_folder(
        arguments.input,
        tokenizer=arguments.tokenizer,
        output=arguments.output,
        end_token=arguments.end_token,
        rules=DocumentRules(
            arguments.text_field,
            arguments.document_rule,
            arguments.lines_per_document,
            arguments.end_token_rule,
            arguments.include,
        ),
        backend=backend,
        num_workers=arguments.workers,
        max_bad_records=arguments.max_bad_records,
        shard_bytes=arguments.shard_bytes,
        extend=arguments.extend,
        keep_going=arguments.keep_going,
        overwrite=arguments.overwrite,
        ranks=ranks,
    )
    if manifest is not None:  # rank 0 reports for all
        print(source_table(arguments.output, manifest))
        print(summary(manifest, seconds=time.perf_counter() - start), "->", arguments.output)
        for warning in warnings(manifest):
            print(f"warning: {warning}", file=sys.stderr)


def _backend(arguments: argparse.Namespace) -> str:
    choice = choose_backend(arguments.tokenizer, arguments.backend)
    print(choice, flush=True)
    return choice.backend


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.tokenize_shards", description=__doc__)
    _add_text(parser.add_argument)
    _add_work(parser.add_argument)
    return parser


def _add_text(add: Callable[..., object]) -> None:
    """Add the options that say what is read, and by which rules."""
    add(
        "--input",
        nargs="+",
        required=True,
        metavar="PATH",
        help="raw shards (txt, jsonl, parquet, tar; gz, bz2, xz, zst), folders, quoted globs, URLs, or hf:NAME",
    )
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
    add(
        "--max_bad_records",
        type=number_or_share,
        default=0,
        metavar="N",
        help="skip up to N unreadable records, or a share of all documents such as 1e-6 (default: 0)",
    )


def _add_work(add: Callable[..., object]) -> None:
    """Add the options that say what is written, and how the work is done."""
    add("--output", required=True, metavar="DIR", help="new or empty folder, or one that this command left unfinished")
    add(
        "--workers",
        type=workers_or_auto,
        metavar="N",
        help="N processes, one token shard each at a time (default: auto, one per core)",
    )
    add("--backend", choices=CHOICES, default=AUTO, help="library that encodes; the ids are the same (default: auto)")
    add("--shard_bytes", type=shard_bytes_of, metavar="N", help=SHARD_BYTES_HELP)
    add("--extend", action="store_true", help="append raw shards of which --output has no tokens yet")
    add("--keep_going", action="store_true", help="report all files that cannot be read at the end, not just the first")
    add("--overwrite", action="store_true", help="replace the token shards in --output")


if __name__ == "__main__":
    sys.exit(main())
