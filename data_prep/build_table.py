"""Build a route table from counts: `python -m data_prep.build_table --counts FILE --num_experts 16 --output FILE`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_prep.assignments import balanced_table, load_summary, random_table, round_robin_table
from data_prep.command_line import user_errors_in_one_line
from data_prep.counts import Counts, read_counts
from data_prep.route_table import RouteTable, write_route_table
from data_prep.tokenizer import load_tokenizer, tokenizer_digest

# method -> the table of sparse layer number `variant`, int32 [num_keys]
METHODS: dict[str, Callable[..., np.ndarray]] = {
    "balanced": lambda counts, num_experts, *, seed, variant, ep_size: balanced_table(
        counts, num_experts, seed=seed, variant=variant, ep_size=ep_size
    ),
    "random": lambda counts, num_experts, *, seed, variant, ep_size: random_table(
        len(counts), num_experts, seed=seed, variant=variant
    ),
    "round_robin": lambda counts, num_experts, *, seed, variant, ep_size: round_robin_table(len(counts), num_experts),
}


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    counts = read_counts(arguments.counts)
    table = build_table(
        counts,
        arguments.num_experts,
        method=arguments.method,
        num_tables=arguments.num_tables,
        seed=arguments.seed,
        ep_size=arguments.ep_size,
        vocab_size=arguments.vocab_size,
    )
    heaviest_text = _heaviest_text(counts, arguments.tokenizer or _tokenizer_beside(arguments.counts))
    write_route_table(arguments.output, table)
    print(_report(table, counts, heaviest_text))
    print(f"-> {arguments.output}  {table.digest}")


def build_table(
    counts: Counts,
    num_experts: int,
    *,
    method: str = "balanced",
    num_tables: int = 1,
    seed: int = 0,
    ep_size: int = 1,
    vocab_size: int | None = None,
) -> RouteTable:
    """Return `num_tables` tables over `vocab_size` keys (default: the counted ones) with their predicted load."""
    if num_tables < 1:
        raise ValueError(f"--num_tables {num_tables} must be at least 1: one table per sparse layer")
    padded = _padded(counts.counts, counts.vocab_size if vocab_size is None else vocab_size)
    make = METHODS[method]
    tables = [make(padded, num_experts, seed=seed, variant=j, ep_size=ep_size) for j in range(num_tables)]
    summaries = [load_summary(table, padded, num_experts, ep_size) for table in tables]
    return RouteTable(
        tables=np.stack(tables)[:, :, None],
        num_experts=num_experts,
        method=method,
        seed=seed,
        ep_size=ep_size,
        tokenizer_digest=counts.tokenizer_digest,
        corpus_digest=counts.corpus_digest,
        lower_bound=summaries[0].lower_bound,
        load=np.stack([summary.load_E for summary in summaries]),
    )


def _padded(counts: np.ndarray, vocab_size: int) -> np.ndarray:
    """Append ids that never occur: models pad their vocabulary (51200 = 50 * 1024 for GPT-2's 50257)."""
    if vocab_size < len(counts):
        raise ValueError(
            f"--vocab_size {vocab_size} is smaller than the {len(counts)} token ids that were counted; "
            f"give at least {len(counts)}"
        )
    return np.pad(counts, (0, vocab_size - len(counts)))


def _report(table: RouteTable, counts: Counts, heaviest_text: str) -> str:
    share = counts.counts.max() / counts.num_tokens
    return "\n".join(
        [
            f"{table.method} table: {table.num_tables} x {table.vocab_size:,} keys -> {table.num_experts} experts",
            f"expert load, max/mean: {table.max_over_mean:.4f} (no table can do better than {table.lower_bound:.4f})",
            f"rank load, max/mean over ep_size={table.ep_size} ranks: {table.rank_max_over_mean:.4f}",
            f"heaviest token: id {counts.counts.argmax()}{heaviest_text}, {share:.2%} of {counts.num_tokens:,} tokens",
        ]
    )


def _heaviest_text(counts: Counts, folder: Path | str | None) -> str:
    if folder is None:
        return ""
    tokenizer = load_tokenizer(folder)
    digest = tokenizer_digest(tokenizer)
    if digest != counts.tokenizer_digest:
        raise ValueError(
            f"the counts are of tokenizer {counts.tokenizer_digest} but {folder} holds {digest}; give that tokenizer"
        )
    return f" {tokenizer.decode([int(counts.counts.argmax())], skip_special_tokens=False)!r}"


def _tokenizer_beside(counts_path: str) -> Path | None:
    folder = Path(counts_path).parent / "tokenizer"
    return folder if folder.is_dir() else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.build_table", description=__doc__)
    add = parser.add_argument
    add("--counts", required=True, help="counts file written by data_prep.count_tokens")
    add("--num_experts", type=int, required=True, help="number of experts of a sparse layer")
    add("--method", choices=sorted(METHODS), default="balanced", help="how keys get their experts (default: balanced)")
    add("--num_tables", type=int, default=1, help="one table per sparse layer (default: 1)")
    add("--seed", type=int, default=0, help="same seed, same table (default: 0)")
    add("--ep_size", type=int, default=1, help="ranks that share the experts; balances them too (default: 1)")
    add("--vocab_size", type=int, help="the model's padded vocabulary, e.g. 51200 (default: as counted)")
    add("--tokenizer", help="tokenizer folder, to show the heaviest token (default: tokenizer/ beside the counts)")
    add("--output", required=True, help="route table to write, .safetensors")
    return parser


if __name__ == "__main__":
    sys.exit(main())
