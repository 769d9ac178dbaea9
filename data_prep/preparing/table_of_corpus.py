"""The counts of a prepared corpus, its balanced route table, and the check of that table."""

import sys
from pathlib import Path

import numpy as np

from data_prep.counts.count_folders import count_folders
from data_prep.counts.counts_file import Counts, read_counts, write_counts
from data_prep.counts.drift import Drift, measure_drift
from data_prep.processes.mpi_ranks import MpiRanks
from data_prep.shards.mixture import read_mixture
from data_prep.table_checks.held_out_contexts import Contexts, NoContext
from data_prep.table_checks.table_check import TableCheck, measure_table
from data_prep.tables.make_route_table import TableOptions, make_route_table
from data_prep.tables.route_table import RouteTable
from data_prep.tables.route_table_file import write_route_table

COUNTS_NAME = "counts.safetensors"
BATCH_TOKENS = (1024, 8192, 65536)
CHECKED_TOKENS = 20_000_000


def count_corpus(output: Path, *, num_workers: int, ranks: MpiRanks) -> Counts | None:
    """Count the tokens of the mixture in `output`, unless its counts are there; rank 0 returns them, others None.

    Collective over `ranks`.
    """
    path = output / COUNTS_NAME
    counts = _finished_counts(path, output) if ranks.rank == 0 else None
    if ranks.broadcast(counts is not None):
        return counts
    counts = count_folders([output], num_workers=num_workers, ranks=ranks)
    if ranks.rank > 0:
        return None
    write_counts(path, counts)
    num_seen = np.count_nonzero(counts.counts)
    print(f"{counts.num_tokens:,} tokens per epoch, {num_seen:,} of {len(counts.counts):,} token ids occur -> {path}")
    return counts


def _finished_counts(path: Path, output: Path) -> Counts | None:
    if not path.is_file():
        return None
    try:
        counts = read_counts(path)
    except ValueError:  # damaged: it is made again
        return None
    mixture = read_mixture(output)
    is_current = (counts.corpus_digest, counts.tokenizer_digest) == (mixture.corpus_digest, mixture.tokenizer_digest)
    return counts if is_current and counts.hash_key == "token" else None


def build_table(counts: Counts, options: TableOptions, output: Path) -> tuple[Path, RouteTable]:
    """Write the table of `options`; the same counts and options give the same bytes."""
    table = make_route_table(counts, options)
    tables = f"_x{options.num_tables}" if options.num_tables > 1 else ""
    path = output / f"{options.method}_{options.num_experts}_ep{options.ep_size}{tables}.safetensors"
    write_route_table(path, table)
    return path, table


def check_table(
    table: RouteTable, counts: Counts, data: Path, *, is_counted: bool, context_length: int, num_workers: int
) -> tuple[TableCheck, Drift] | tuple[None, None]:
    """Measure `table` on the tokens of `data`; is_counted: they are the tokens of `counts`, so nothing drifts.

    If they are shorter than one context, warn and return None for both.
    """
    try:
        contexts = Contexts(data, context_length=context_length, max_tokens=CHECKED_TOKENS)
    except NoContext as error:
        print(f"warning: the route table was not measured: {error}", file=sys.stderr)
        return None, None
    of_data = counts if is_counted else count_folders([data], num_workers=num_workers)
    check = measure_table(
        table,
        contexts,
        of_data,
        name=table.method,
        ep_size=table.ep_size,
        layer=0,
        batch_sizes=list(BATCH_TOKENS),
    )
    return check, measure_drift(of_data, counts)
