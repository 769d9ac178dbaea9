"""Turn text into everything that training needs: `python -m data_prep.prepare CORPUS --tokenizer DIR --output DIR`.

CORPUS is raw text (files, folders, globs, hf:NAME) or one corpus recipe, such as those in data_prep/corpora/. The
command writes token shards, a mixture, counts and report.html, and with --num_experts a balanced route table.
If it is killed, the same command resumes: finished work is kept. Under an MPI launcher the ranks share the work.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from data_prep.counts.counts_file import Counts
from data_prep.preparing.corpus import Corpus, read_corpus
from data_prep.preparing.estimate import dry_run
from data_prep.preparing.next_command import next_command
from data_prep.preparing.options import add_document_options, add_work_options, print_backend, rules_of
from data_prep.preparing.part_summary import summarize_parts, summary_lines
from data_prep.preparing.report import Findings, write_report
from data_prep.preparing.table_of_corpus import build_table, check_table, count_corpus
from data_prep.preparing.tokenize_parts import tokenize_parts
from data_prep.preparing.validation import describe_validation
from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.processes.mpi_ranks import MpiRanks, find_ranks, ranks_end_together
from data_prep.processes.worker_pool import resolve_workers
from data_prep.table_checks.text_report import check_report, table_report
from data_prep.tables.make_route_table import TableOptions
from data_prep.tokenizing.output_folder import locked_folder
from data_prep.tokenizing.shard_job import ShardTokenizer


@ranks_end_together
@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    _check_numbers(arguments)
    ranks = find_ranks()
    num_workers = resolve_workers(arguments.workers, num_on_host=ranks.num_on_host)
    corpus = read_corpus(arguments.corpus, raw=arguments.raw, valid=arguments.valid, rules=rules_of(arguments))
    backend = ranks.broadcast(print_backend(arguments) if ranks.rank == 0 else None)
    if arguments.dry_run:
        if ranks.rank == 0:
            tokenizer = ShardTokenizer(Path(arguments.tokenizer), backend=backend, num_threads=1)
            num_processes = num_workers * ranks.world_size
            print(dry_run(corpus, Path(arguments.output), tokenizer, num_processes=num_processes))
        return
    with _only_writer(corpus, Path(arguments.output)) if ranks.rank == 0 else nullcontext():
        counts = _write_tokens(corpus, arguments, backend, ranks, num_workers=num_workers)
        if ranks.rank == 0:
            _finish(corpus, counts, arguments, num_workers=num_workers)


@contextmanager
def _only_writer(corpus: Corpus, output: Path) -> Iterator[None]:
    """Check the text, lock the folder, and remove what a killed command was writing."""
    corpus.find_raw_shards(output)
    with locked_folder(output):
        for leftover in output.glob(".*.tmp"):
            leftover.unlink()
        yield


def _write_tokens(
    corpus: Corpus, arguments: argparse.Namespace, backend: str, ranks: MpiRanks, *, num_workers: int
) -> Counts | None:
    """Write token shards, mixtures and counts; rank 0 returns the counts. Collective over `ranks`."""
    output = Path(arguments.output)
    tokenize_parts(
        corpus,
        output,
        tokenizer=arguments.tokenizer,
        end_token=arguments.end_token,
        backend=backend,
        num_workers=num_workers,
        max_bad_records=arguments.max_bad_records,
        shard_bytes=arguments.shard_bytes,
        extend=arguments.extend,
        keep_going=arguments.keep_going,
        overwrite=arguments.overwrite,
        ranks=ranks,
    )
    if ranks.rank == 0:
        corpus.write_mixtures(output)
    ranks.wait()
    return count_corpus(output, num_workers=num_workers, ranks=ranks)


def _finish(corpus: Corpus, counts: Counts, arguments: argparse.Namespace, *, num_workers: int) -> None:
    """Build and check the table, if its number of experts is given, and report."""
    output, context_length = Path(arguments.output), arguments.context_length
    validation = describe_validation(
        output,
        corpus.validation_data(output),
        eval_fraction=arguments.eval_fraction,
        context_length=context_length,
    )
    path = table = check = drift = None
    if arguments.num_experts is not None:
        path, table = build_table(counts, _table_options(arguments), output)
        print(f"{table_report(table, counts)}\n-> {path}", flush=True)
        data, is_counted = validation.data or output, validation.data is None
        check, drift = check_table(
            table, counts, data, is_counted=is_counted, context_length=context_length, num_workers=num_workers
        )
        if check is not None:
            print(check_report(check, drift), flush=True)
    command = next_command(output, table, path, validation, context_length=context_length)
    parts = summarize_parts(corpus, output)
    report = write_report(output, Findings(parts, counts, validation, command, check, drift))
    print(f"-> {report}\n\n{summary_lines(parts)}\nvalidation: {validation.sentence}\nnext: {command}")


def _check_numbers(arguments: argparse.Namespace) -> None:
    """Raise now what would be raised after the text is tokenized."""
    if arguments.context_length < 1:
        raise ValueError(f"--context_length {arguments.context_length} must be at least 1")
    if not 0 <= arguments.eval_fraction < 1:
        raise ValueError(f"--eval_fraction {arguments.eval_fraction} must be at least 0 and below 1")
    if arguments.num_experts is None and (arguments.ep_size, arguments.num_tables) != (1, 1):
        raise ValueError(
            f"--ep_size {arguments.ep_size} and --num_tables {arguments.num_tables} describe a route table; "
            "give its --num_experts too"
        )
    if arguments.num_experts is not None:
        _table_options(arguments)


def _table_options(arguments: argparse.Namespace) -> TableOptions:
    return TableOptions(arguments.num_experts, ep_size=arguments.ep_size, num_tables=arguments.num_tables)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.prepare", description=__doc__)
    add = parser.add_argument
    add("corpus", nargs="+", metavar="CORPUS", help="raw text, or one corpus recipe (.yaml)")
    add("--raw", metavar="DIR", help="folder to which a recipe's inputs are relative (default: the current one)")
    add("--valid", nargs="+", default=[], metavar="PATH", help="held-out raw text to validate on")
    add("--output", required=True, metavar="DIR", help="folder to write")
    add("--dry_run", action="store_true", help="print files, bytes, expected tokens, time and disk, and write nothing")
    _add_table(parser)
    add_document_options(add)
    add_work_options(add)
    return parser


def _add_table(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--num_experts", type=int, metavar="E", help="experts of a sparse layer (default: stop before the route table)")
    add("--ep_size", type=int, default=1, metavar="R", help="ranks that share the experts (default: 1)")
    add("--num_tables", type=int, default=1, metavar="N", help="route tables, one per sparse layer (default: 1)")
    add("--context_length", type=int, default=1024, metavar="S", help="the model's sequence length (default: 1024)")
    add(
        "--eval_fraction",
        type=float,
        default=0.01,
        metavar="F",
        help="share that training will hold out if there is no held-out text (default: 0.01)",
    )


if __name__ == "__main__":
    sys.exit(main())
