"""Time every stage of the preparation on one core: `python -m data_prep.benchmark --input PATH --tokenizer DIR`.

Each measurement runs in a new process on one core, so its memory is its own. The cases alternate, so other load on the
machine affects all of them. The rates are medians; all ways to tokenize must find the same number of tokens.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from data_prep.benchmark.cases import (
    CASES,
    LARGE_DOCUMENT,
    REFERENCE,
    BenchmarkFiles,
    write_files,
    write_large_document,
)
from data_prep.benchmark.cold import bytes_read_from_disk, write_cold_shards
from data_prep.processes.command_line import user_errors_in_one_line


@dataclass(frozen=True)
class Measurement:
    """The result of one process."""

    amount: int  # of work, in the units of the case
    seconds: float
    peak_bytes: int  # resident memory, Python and libraries included
    disk_bytes: int = 0  # read from the disk


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    names = [name for name in CASES if name != LARGE_DOCUMENT and arguments.only in name]
    _check(arguments, names)
    with tempfile.TemporaryDirectory(prefix="data_prep_benchmark_", dir=arguments.scratch) as scratch:
        files = write_files(
            Path(scratch), arguments.input, arguments.tokenizer, num_bytes=int(arguments.megabytes * 1e6)
        )
        if any(CASES[name].bytes_per_unit for name in names):
            write_cold_shards(files.folder, num_bytes=int(arguments.cold_megabytes * 1e6))
        measured = _measure_in_turn(names, files, repeats=arguments.repeats)
        if arguments.large_document:
            write_large_document(files, num_bytes=int(arguments.large_document * 1e9))
            measured |= _measure_in_turn([LARGE_DOCUMENT], files, repeats=1)
    print(table(measured))


def measure(name: str, files: BenchmarkFiles) -> Measurement:
    """Prepare a case and time it. Call it in a new process, to which it pins one core."""
    os.environ["RAYON_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    run = CASES[name].make(files)
    start, disk_bytes = time.perf_counter(), bytes_read_from_disk()
    amount = run()
    seconds, disk_bytes = time.perf_counter() - start, bytes_read_from_disk() - disk_bytes
    return Measurement(amount, seconds, peak_resident_bytes(), disk_bytes)


def peak_resident_bytes() -> int:
    """Return the peak memory of this process. getrusage would include the process that it was forked from."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def table(measured: dict[str, list[Measurement]]) -> str:
    """Return one line per case: median, lowest and highest rate, the rate divided by the reference's, and memory.

    A case that needs the disk also has the bytes read from it per byte that it needs, at worst.
    """
    reference = _median_rate(measured[REFERENCE]) if REFERENCE in measured else None
    lines = [
        f"{'on one core':44}{'median':>10}{'from':>9}{'to':>9}  {'unit':20}{'x reference':>12}{'disk/needed':>12}"
        f"{'peak MiB':>10}"
    ]
    for name, runs in measured.items():
        case, rates = CASES[name], [run.amount / run.seconds / 1e6 for run in runs]
        times = f"{_median_rate(runs) / reference:.1f}" if reference and case.unit == CASES[REFERENCE].unit else ""
        needed = case.bytes_per_unit
        disk = f"{max(run.disk_bytes / run.amount for run in runs) / needed:.2f}" if needed else ""
        lines.append(
            f"{name:44}{statistics.median(rates):>10.2f}{min(rates):>9.2f}{max(rates):>9.2f}  {case.unit:20}"
            f"{times:>12}{disk:>12}{max(run.peak_bytes for run in runs) / 2**20:>10,.0f}"
        )
    return "\n".join(lines)


def _check(arguments: argparse.Namespace, names: list[str]) -> None:
    sizes = arguments.megabytes, arguments.cold_megabytes
    if arguments.repeats < 1 or min(sizes) <= 0 or arguments.large_document < 0:
        raise ValueError(
            f"--repeats {arguments.repeats} must be at least 1, --megabytes {sizes[0]:g} and --cold_megabytes "
            f"{sizes[1]:g} above 0, --large_document {arguments.large_document:g} at least 0"
        )
    if not names:
        raise ValueError(f"--only {arguments.only!r} matches no case; the cases are: {'; '.join(CASES)}")


def _measure_in_turn(names: list[str], files: BenchmarkFiles, *, repeats: int) -> dict[str, list[Measurement]]:
    measured: dict[str, list[Measurement]] = {name: [] for name in names}
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool,
        tqdm(total=repeats * len(names), unit="run", disable=not sys.stderr.isatty()) as bar,
    ):
        for _ in range(repeats):
            for name in names:
                bar.set_description(name)
                measured[name].append(pool.submit(measure, name, files).result())
                bar.update()
    _check_same_amounts(measured)
    _check_disk_was_read(measured)
    return measured


def _check_same_amounts(measured: dict[str, list[Measurement]]) -> None:
    """Every case that tokenizes the text must find the same tokens; otherwise the rates compare different work."""
    amounts = {name: runs[0].amount for name, runs in measured.items() if CASES[name].tokenizes_the_text}
    if len(set(amounts.values())) > 1:
        raise ValueError(f"the ways to tokenize find different numbers of tokens: {amounts}; do not trust the rates")


def _check_disk_was_read(measured: dict[str, list[Measurement]]) -> None:
    """A case that needs the disk must read it; otherwise its rate is that of memory."""
    for name, runs in measured.items():
        needed, found = runs[0].amount * CASES[name].bytes_per_unit, min(run.disk_bytes for run in runs)
        if found < needed:
            raise ValueError(
                f"{name!r} needs {needed:,} bytes of a disk but read {found:,}: the rest was in memory; "
                "give a --scratch on a disk, whose pages can be dropped"
            )


def _median_rate(runs: list[Measurement]) -> float:
    return statistics.median(run.amount / run.seconds for run in runs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep.benchmark", description=__doc__)
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="PATH", help="raw shards with text, or folders or globs of them")
    add("--tokenizer", required=True, metavar="DIR", help="folder with tokenizer.json, of GPT-2's kind")
    add("--megabytes", type=float, default=16, metavar="MB", help="amount of text to read, in MB (default: 16)")
    add("--repeats", type=int, default=3, metavar="N", help="number of measurements per case (default: 3)")
    add("--only", default="", metavar="TEXT", help="run only the cases whose name contains TEXT")
    add("--large_document", type=float, default=0, metavar="GB", help="also tokenize a single document of GB gigabytes")
    add("--cold_megabytes", type=float, default=1074, metavar="MB", help="size of the cold shard (default: 1074)")
    add("--scratch", metavar="DIR", help="folder for temporary files (default: the system's)")
    return parser
