"""Check every bit of folders of token shards: `python -m data_prep.verify DIR ...` reports each damaged file.

With --raw, it also compares the raw text with the digests of the text that the tokens were made of. Under an MPI
launcher the ranks divide the files.
"""

import argparse
import sys
from pathlib import Path

from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.processes.mpi_ranks import find_ranks, ranks_end_together
from data_prep.processes.worker_pool import resolve_workers, workers_or_auto
from data_prep.shards.mixture import mixture_folders
from data_prep.verifying.folder_check import intact, verify
from data_prep.verifying.raw_check import verify_raw


@ranks_end_together
@user_errors_in_one_line
def main(argv: list[str] | None = None) -> int:
    """Return 0 if all files are intact, 1 if any is damaged."""
    arguments, ranks = _parser().parse_args(argv), find_ranks()
    folders = _folders(arguments.folders)
    options = {"num_workers": resolve_workers(arguments.workers, num_on_host=ranks.num_on_host), "ranks": ranks}
    is_intact = True
    for folder in folders:
        problems = verify(folder, **options)
        if ranks.rank == 0:
            print(*(problems or [intact(folder)]), sep="\n")
        is_intact = is_intact and not problems
    if arguments.raw:
        problems = verify_raw(folders, arguments.raw, **options)
        if ranks.rank == 0:
            print(*(problems or ["the raw text is that of the tokens"]), sep="\n")
        is_intact = is_intact and not problems
    return 0 if is_intact else 1


def _folders(paths: list[str]) -> list[Path]:
    """Return the folders of token shards that `paths` name, and those of all parts of the mixtures among them."""
    return [folder for path in paths for folder in (mixture_folders(path) or [Path(path)])]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.verify", description=__doc__)
    add = parser.add_argument
    add(
        "folders",
        nargs="+",
        metavar="DIR",
        help="folder of token shards or of predictions, or a mixture, whose parts are all checked",
    )
    add("--raw", nargs="+", metavar="PATH", help="also compare the raw text: what was tokenized")
    add("--workers", type=workers_or_auto, metavar="N", help="N processes (default: auto, one per core)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
