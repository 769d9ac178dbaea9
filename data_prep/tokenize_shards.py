"""Turn raw shards into token shards: `python -m data_prep.tokenize_shards --input PATH --tokenizer DIR --output DIR`.

Small raw shards are joined into token shards, and large .txt and .jsonl files are cut. The bytes written do not depend
on the number of processes. Under an MPI launcher the ranks divide the token shards:
`mpirun -n N python -m data_prep.tokenize_shards ...`.
If the command is killed, the same command keeps the finished token shards and writes the others.
"""

import argparse
import sys
import time

from data_prep.preparing.options import add_document_options, add_work_options, print_backend, rules_of
from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.processes.mpi_ranks import find_ranks, ranks_end_together
from data_prep.tokenizing.summary import source_table, summary, warnings
from data_prep.tokenizing.tokenize_folder import tokenize_folder


@ranks_end_together
@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    ranks = find_ranks()
    backend = ranks.broadcast(print_backend(arguments) if ranks.rank == 0 else None)
    start = time.perf_counter()
    manifest = tokenize_folder(
        arguments.input,
        tokenizer=arguments.tokenizer,
        output=arguments.output,
        end_token=arguments.end_token,
        rules=rules_of(arguments),
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.tokenize_shards", description=__doc__)
    add = parser.add_argument
    add(
        "--input",
        nargs="+",
        required=True,
        metavar="PATH",
        help="raw shards (txt, jsonl, parquet, tar; gz, bz2, xz, zst), folders, quoted globs, URLs, or hf:NAME",
    )
    add("--output", required=True, metavar="DIR", help="new or empty folder, or one that this command left unfinished")
    add_document_options(add)
    add_work_options(add)
    return parser


if __name__ == "__main__":
    sys.exit(main())
