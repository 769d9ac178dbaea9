"""Measure the balance of every kind of table: `python -m data_prep.balance_report --counts FILE --data DIR`.

It prints a Markdown table of load imbalances, max/mean, on the counted corpus and on held-out tokens.
"""

import argparse
import sys

from data_prep.counts.counted_tokens import open_counted_tokens
from data_prep.counts.counts_file import read_counts
from data_prep.counts.frequent_bigrams import count_frequent_bigrams
from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.table_checks.held_out_contexts import Contexts
from data_prep.table_checks.held_out_load import whole_load
from data_prep.tables.expert_load import max_over_mean, rank_load
from data_prep.tables.make_route_table import TableOptions, make_route_table, tokens_to_split
from data_prep.tables.route_table import RouteTable

EXPERTS = (16, 64, 128, 256)
HEADS = (
    "experts",
    "table",
    "counted: experts",
    "counted: ranks",
    "lower bound",
    "held out: experts",
    "held out: ranks",
)


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    counts = read_counts(arguments.counts)
    counted = open_counted_tokens(arguments.counts, tokens=arguments.tokens)
    length = arguments.context_length
    contexts = Contexts(arguments.data, context_length=length, max_tokens=sys.maxsize)
    print(_row(HEADS), _row(["---"] * len(HEADS)), sep="\n")
    for num_experts in arguments.num_experts:
        period = min(arguments.rotation_period, num_experts)
        kinds = {
            name: TableOptions(num_experts, seed=arguments.seed, **values)
            for name, values in _kinds(arguments.ep_size, period).items()
        }
        tokens_F = tokens_to_split(counts, list(kinds.values())[-1])  # all that are split are split alike
        bigrams = count_frequent_bigrams(counted, tokens_F, vocab_size=counts.vocab_size, context_length=length)
        for name, options in kinds.items():
            table = make_route_table(counts, options, bigrams=bigrams, context_length=length)
            print(_row([str(num_experts), name, *_cells(table, contexts, arguments.ep_size)]), flush=True)


def _kinds(ep_size: int, rotation_period: int) -> dict[str, dict]:
    """Return the options of each kind of table by its name."""
    split = {"ep_size": ep_size, "split_frequent_tokens": True}
    return {
        "random": {"method": "random"},
        "balanced": {},
        "balanced per rank": {"ep_size": ep_size},
        "balanced per rank, split": split,
        f"balanced per rank, split, rotation {rotation_period}": split | {"rotation_period": rotation_period},
    }


def _cells(table: RouteTable, contexts: Contexts, ep_size: int) -> list[str]:
    counted_E, held_out_E = table.load[0], whole_load(table, 0, contexts)
    counted = [max_over_mean(counted_E), max_over_mean(rank_load(counted_E, ep_size)), table.lower_bound]
    held_out = [max_over_mean(held_out_E), max_over_mean(rank_load(held_out_E, ep_size))]
    return [f"{value:.4f}" for value in counted + held_out]


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.balance_report", description=__doc__)
    add = parser.add_argument
    add("--counts", required=True, help="counts of tokens to build the tables from")
    add("--tokens", metavar="DIR", help="the counted token shards (default: the folder of the counts)")
    add("--data", required=True, metavar="DIR", help="held-out token shards")
    add("--num_experts", type=int, nargs="+", default=EXPERTS, help="numbers of experts (default: 16 64 128 256)")
    add("--ep_size", type=int, default=8, help="number of ranks (default: 8)")
    add(
        "--rotation_period",
        type=int,
        default=16,
        help="period of the tables with rotation, at most the number of experts (default: 16)",
    )
    add("--context_length", type=int, default=128, help="the model's sequence length (default: 128)")
    add("--seed", type=int, default=0, help="seed of the random tables (default: 0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
