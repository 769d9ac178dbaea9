"""Count how often each token, or another hash key, occurs in token shards: `python -m data_prep.count_tokens DIR`.

Under an MPI launcher the ranks divide the tokens: `mpirun -n N python -m data_prep.count_tokens DIR`.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from data_prep.counts.count_folders import count_folders
from data_prep.counts.counts_file import write_counts
from data_prep.counts.hash_keys import COUNTED_AS
from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.processes.mpi_ranks import find_ranks, ranks_end_together
from data_prep.processes.worker_pool import resolve_workers, workers_or_auto


@ranks_end_together
@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    ranks = find_ranks()
    output = arguments.output or _default_output(arguments.folders, hash_key=arguments.hash_key)
    counts = count_folders(
        arguments.folders,
        hash_key=arguments.hash_key,
        vocab_size=arguments.vocab_size,
        num_buckets=arguments.num_buckets,
        context_length=arguments.context_length,
        num_workers=resolve_workers(arguments.workers, num_on_host=ranks.num_on_host),
        ranks=ranks,
    )
    if ranks.rank > 0:  # rank 0 has the sum
        return
    write_counts(output, counts)
    num_seen = np.count_nonzero(counts.counts)
    what = "token ids" if counts.hash_key == "token" else f"{counts.hash_key} keys"
    print(f"{counts.num_tokens:,} tokens, {num_seen:,} of {len(counts.counts):,} {what} occur -> {output}")


def _default_output(folders: list[str], *, hash_key: str) -> Path:
    if len(folders) > 1:
        raise ValueError(f"{len(folders)} folders are given; name the file for their joint counts with --output")
    folder = Path(folders[0])
    if folder.is_file():  # a mixture
        raise ValueError(f"{folder} is a file; name the file for its counts with --output")
    return folder / ("counts.safetensors" if COUNTED_AS[hash_key] == "token" else f"counts_{hash_key}.safetensors")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.count_tokens", description=__doc__)
    add = parser.add_argument
    add("folders", nargs="+", metavar="DIR", help="folder of token shards, or a mixture (docs/data.md)")
    add("--hash_key", choices=sorted(COUNTED_AS), default="token", help="what the model will hash (default: token)")
    add("--num_buckets", type=int, default=0, help="number of buckets that bigrams share, for --hash_key bigram")
    add(
        "--context_length",
        type=int,
        default=0,
        help="the model's sequence length (default: each folder is one context)",
    )
    add("--vocab_size", type=int, help="the model's padded vocabulary, e.g. 51200 (default: the tokenizer's)")
    add("--workers", type=workers_or_auto, metavar="N", help="processes per rank (default: auto, one per core)")
    add("--output", help="counts file to write (default: DIR/counts.safetensors or DIR/counts_KEY.safetensors)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
