"""Check a route table on held-out tokens: `python -m data_prep.check_table TABLE --data DIR --report report.html`."""

import argparse
import sys
from pathlib import Path

from data_prep.counts.count_folders import count_folders
from data_prep.counts.counts_file import Counts
from data_prep.counts.drift import Drift, measure_drift
from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.processes.worker_pool import resolve_workers, workers_or_auto
from data_prep.shards.mixture import Mixture
from data_prep.storage.atomic_file import atomic_file
from data_prep.table_checks.held_out_contexts import Contexts
from data_prep.table_checks.table_check import TableCheck, measure_table
from data_prep.table_checks.text_report import check_report
from data_prep.tables.route_table import RouteTable, check_belongs
from data_prep.tables.route_table_file import read_route_table

BATCH_TOKENS = (1024, 8192, 65536)


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    _check_limits(arguments)
    table = read_route_table(arguments.table)
    contexts = _contexts(arguments, table)
    _check_belongs(table, contexts.mixture, arguments)
    counts = _key_counts(arguments.data, table, contexts.context_length, arguments.workers)
    check = _measure(arguments, table, contexts, counts, name=_name(arguments.table, table))
    beside = _beside(arguments, contexts, counts, check)
    drift = None
    if arguments.against:
        drift = measure_drift(counts, _key_counts(arguments.against, table, contexts.context_length, arguments.workers))
    print(f"{arguments.table}\n{check_report(check, drift)}")
    _write_figures(arguments, check, beside, drift)
    return _verdict(check, arguments)


def _measure(
    arguments, table: RouteTable, contexts: Contexts, counts: Counts, *, name: str, ep_size: int = 0
) -> TableCheck:
    return measure_table(
        table,
        contexts,
        counts,
        name=name,
        ep_size=arguments.ep_size or ep_size or table.ep_size,
        layer=arguments.layer,
        batch_sizes=arguments.batch_tokens,
        seed=arguments.seed,
    )


def _beside(arguments, contexts: Contexts, counts: Counts, check: TableCheck) -> TableCheck | None:
    """Measure the table of --beside on the same batches and ranks."""
    if not arguments.beside:
        return None
    table = read_route_table(arguments.beside)
    _check_belongs(table, contexts.mixture, arguments)
    if (table.hash_key, table.num_buckets, table.vocab_size) != (
        counts.hash_key,
        counts.num_buckets,
        counts.vocab_size,
    ):
        counts = _key_counts(arguments.data, table, contexts.context_length, arguments.workers)
    name = _name(arguments.beside, table)
    name = name if name != check.name else Path(arguments.beside).stem
    return _measure(arguments, table, contexts, counts, name=name, ep_size=check.ep_size)


def _check_belongs(table: RouteTable, mixture: Mixture, arguments) -> None:
    """Refuse tokens of another tokenizer; the table's vocabulary may be padded, but not cut."""
    num_experts = arguments.num_experts or table.num_experts
    vocab_size = max(table.vocab_size, mixture.vocab_size)
    digest = mixture.tokenizer_digest
    check_belongs(table, vocab_size=vocab_size, num_experts=num_experts, tokenizer_digest=digest)


def _contexts(arguments, table: RouteTable) -> Contexts:
    length = arguments.context_length or table.context_length or 1024
    if table.hash_key == "predicted" and not arguments.predicted:
        raise ValueError("the table hashes predicted tokens; give the folder of predictions with --predicted DIR")
    predicted = arguments.predicted if table.hash_key == "predicted" else None
    return Contexts(arguments.data, context_length=length, max_tokens=arguments.max_tokens, predicted=predicted)


def _key_counts(folder: str, table: RouteTable, context_length: int, num_workers: int | None) -> Counts:
    return count_folders(
        [folder],
        hash_key=table.hash_key,
        vocab_size=table.vocab_size,
        num_buckets=table.num_buckets,
        context_length=context_length,
        num_workers=resolve_workers(num_workers),
    )


def _name(path: str, table: RouteTable) -> str:
    if table.method == "imported":
        return Path(path).stem
    key = "" if table.hash_key == "token" else f" {table.hash_key}"
    rotation = f", rotation {table.rotation_period}" if table.columns == "rotation" else ""
    return table.method + key + (", split" if table.split else "") + rotation


def _write_figures(arguments, check: TableCheck, beside: TableCheck | None, drift: Drift | None) -> None:
    if not (arguments.plots or arguments.report):
        return
    from data_prep.table_checks.figures import check_figures, write_figure  # matplotlib takes a second to import
    from data_prep.table_checks.html_report import html_report

    figures = check_figures(check, beside)
    for name, figure in figures.items() if arguments.plots else ():
        write_figure(Path(arguments.plots) / f"{name}.png", figure)
        print(f"-> {Path(arguments.plots) / name}.png")
    if arguments.report:
        with atomic_file(arguments.report) as file:
            file.write(html_report(check, beside, drift, figures).encode())
        print(f"-> {arguments.report}")


def _check_limits(arguments) -> None:
    for name in ("max_imbalance", "max_rank_imbalance"):
        limit = getattr(arguments, name)
        if limit is not None and not limit > 0:  # nan too: no load would exceed it
            raise ValueError(f"--{name} {limit} must be above 0: a load, max/mean, is at least 1")
    for name in ("context_length", "ep_size", "num_experts"):
        number = getattr(arguments, name)
        if number is not None and number < 1:
            raise ValueError(f"--{name} {number} must be at least 1; without it, the table's own is used")


def _verdict(check: TableCheck, arguments) -> int:
    """Return exit status 1 if a limit is exceeded."""
    status = 0
    for what, found, limit in (
        ("expert", check.max_over_mean, arguments.max_imbalance),
        ("rank", check.rank_max_over_mean, arguments.max_rank_imbalance),
    ):
        if limit is not None and found > limit:
            print(f"FAILED: {what} imbalance, max/mean, {found:.4f} is above {limit}", file=sys.stderr)
            status = 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.check_table", description=__doc__)
    add = parser.add_argument
    add("table", metavar="TABLE", help="route table, .safetensors")
    add("--data", required=True, metavar="DIR", help="token shards or a mixture that the table was not built from")
    add(
        "--batch_tokens",
        type=int,
        nargs="+",
        default=BATCH_TOKENS,
        help="batch sizes in tokens (default: 1024 8192 65536)",
    )
    add("--context_length", type=int, help="the model's sequence length (default: the table's, else 1024)")
    add("--ep_size", type=int, help="ranks that share the experts (default: the table's)")
    add("--num_experts", type=int, help="refuse a table for another number of experts")
    add("--layer", type=int, default=0, help="number of the table that batches and figures measure (default: 0)")
    add("--max_imbalance", type=float, help="exit with status 1 if the imbalance of experts, max/mean, exceeds this")
    add("--max_rank_imbalance", type=float, help="exit with status 1 if the imbalance of ranks exceeds this")
    add("--against", metavar="DIR", help="the counted corpus: measures drift and unseen tokens")
    add("--beside", metavar="TABLE", help="another table for comparison in the figures, e.g. a random one")
    add("--predicted", metavar="DIR", help="token shards with a prediction of each next token, for key predicted")
    add(
        "--max_tokens",
        type=int,
        default=50_000_000,
        help="number of tokens to measure, evenly spaced (default: 50000000)",
    )
    add(
        "--workers",
        type=workers_or_auto,
        metavar="N",
        help="processes that count the keys of --data and --against (default: auto, one per core)",
    )
    add("--seed", type=int, default=0, help="seed of the sampled batches (default: 0)")
    add("--plots", metavar="DIR", help="folder for load_per_expert.png and imbalance_by_batch.png")
    add("--report", metavar="FILE", help="one-page .html report, figures included")
    return parser


if __name__ == "__main__":
    sys.exit(main())
