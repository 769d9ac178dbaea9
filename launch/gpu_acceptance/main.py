"""The command of the acceptance: run the parts one after the other, and report after each of them."""

import argparse
import sys
import time

from launch.gpu_acceptance.measuring.figures import FAILED
from launch.gpu_acceptance.measuring.setting import Setting, make_setting
from launch.gpu_acceptance.part_list import PARTS, Part
from launch.gpu_acceptance.part_process import run_in_process
from launch.gpu_acceptance.report import write_report
from launch.gpu_acceptance.results import PartResult, log_path, read_result

EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT = 0, 1, 2


def main(argv: list[str] | None = None, *, parts: list[Part] = PARTS) -> int:
    """Exit status: 0 if nothing failed, 1 if a part failed, 2 for input that a user can correct."""
    options = _parser(parts).parse_args(argv)
    try:
        setting = make_setting(device=options.device, small=options.small, folder=options.output)
        results = {part.name: read_result(part.name, setting) for part in parts}
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    print(f"Device: {setting.device_name}{_about_sizes(setting, asked=options.small)}", flush=True)
    results = {name: result for name, result in results.items() if result}
    due = [part for part in parts if _is_due(part, results.get(part.name), only=options.only)]
    start = time.monotonic()
    for number, part in enumerate(due, start=1):
        print(f"[{number}/{len(due)}] {part.name}: {part.promise} (at most {part.limit_seconds:g} s) ...", flush=True)
        results[part.name] = run_in_process(part, setting)
        print(_outcome(results[part.name], setting), flush=True)
        report = write_report(parts, results, setting)
    report = write_report(parts, results, setting)
    kept = ", ".join(sorted(results.keys() - {part.name for part in due})) or "none"
    print(f"{len(due)} parts in {time.monotonic() - start:.0f} s, of earlier starts: {kept}; report: {report}")
    return EXIT_FAILED if any(result.verdict == FAILED for result in results.values()) else EXIT_DONE


def _is_due(part: Part, earlier: PartResult | None, *, only: list[str] | None) -> bool:
    """Parts that --only names run again; of the others, those that no earlier start brought to an end."""
    if only:
        return part.name in only
    return earlier is None or earlier.error is not None


def _about_sizes(setting: Setting, *, asked: bool) -> str:
    if asked or not setting.small:
        return ""
    return "; without a GPU, sizes are small, and targets of speed do not apply"


def _outcome(result: PartResult, setting: Setting) -> str:
    failed = [
        f"    {f.what}: {'not measured' if f.value is None else f'{f.value:.4g}'}, target {f.target} {f.note}".rstrip()
        for f in result.figures
        if f.verdict == FAILED
    ]
    error = [f"    {result.error.splitlines()[0]} {log_path(result.part, setting)}"] if result.error else []
    return "\n".join([f"    {result.verdict} in {result.seconds:.0f} s", *failed, *error])


def _parser(parts: list[Part]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launch.gpu_acceptance",
        description="Check and measure everything that needs a GPU, in less than 25 minutes (docs/benchmarks.md).",
        allow_abbrev=False,
    )
    add, names = parser.add_argument, [part.name for part in parts]
    add(
        "--only",
        nargs="+",
        choices=names,
        metavar="NAME",
        help=f"run these parts, again if need be: {', '.join(names)}",
    )
    add("--small", action="store_true", help="use sizes that a CPU manages in seconds; the default without a GPU")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU if any (default: auto)")
    add("--output", default="runs/gpu_acceptance", help="folder for results and report (default: %(default)s)")
    return parser
