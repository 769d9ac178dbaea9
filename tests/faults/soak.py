"""Run under a seeded mix of faults, and compare with a run without any: `python -m tests.faults.soak --minutes 10`.

Prints one JSON object: the faults, goodput, mean time to recover, and whether the weights are bit-equal.
"""

import argparse
import json
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.two_ranks import Run
from tests.tiny_run import write_tiny_recipe
from train.config.run_paths import completed_checkpoints
from train.metrics.metrics_file import read_points
from train.metrics.records import TrainRecord
from train.processes.exit_codes import EXIT_DONE

SIGNALS = ("terminate one", "signal one", "stop file")
FAULTS = (*SIGNALS, "kill one", "kill all", "stop one", "flip a bit", "small files")
HANG_TIMEOUT = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="approximate duration of the faults")
    parser.add_argument("--attempts", type=int, default=1000, help="maximum number of faults")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(soak(Path(folder), options), indent=1))


def soak(folder: Path, options: argparse.Namespace) -> dict:
    recipe, choice = _recipe(folder, num_steps=int(options.minutes * 300)), random.Random(options.seed)
    start = time.monotonic()
    untouched = Run(recipe, folder / "untouched")
    assert untouched.wait(seconds=7200) == [EXIT_DONE, EXIT_DONE], untouched.output
    untouched_seconds, start = time.monotonic() - start, time.monotonic()
    faults, recoveries, codes, failed = Counter(), [], None, None
    run_dir, deadline = folder / "run", start + 60 * options.minutes
    while codes != [EXIT_DONE, EXIT_DONE]:
        calm = time.monotonic() > deadline or sum(faults.values()) >= options.attempts
        fault = "none" if calm else choice.choice(options.faults)
        faults[fault] += 1
        codes, stepped, struck = _attempt(recipe, run_dir, fault, None if calm else choice)
        if stepped and failed:
            recoveries.append(stepped - failed)
        failed = (failed if stepped is None else None) or struck
        print(f"{time.monotonic() - start:7.1f} s  {fault}: exit codes {codes}", flush=True)
    seconds = time.monotonic() - start
    return {
        "faults": faults,
        "seconds": round(seconds, 1),
        "untouched_seconds": round(untouched_seconds, 1),
        "goodput": round(untouched_seconds / seconds, 3),
        "mean_seconds_to_recover": round(sum(recoveries) / max(len(recoveries), 1), 2),
        "losses_are_equal": _losses_are_equal(run_dir, folder / "untouched", is_whole="small files" not in faults),
        "weights_are_equal": _final_bytes(run_dir) == _final_bytes(folder / "untouched"),
    }


def _recipe(folder: Path, *, num_steps: int) -> Path:
    return write_tiny_recipe(
        folder, max_steps=num_steps, save_every=25, eval_every=50, keep_last=4, eval_sequences=40,
        hang_timeout_seconds=HANG_TIMEOUT,
    )  # fmt: skip


def _attempt(
    recipe: Path, run_dir: Path, fault: str, choice: random.Random | None
) -> tuple[list[int], float | None, float | None]:
    """Start the run, and inject the fault at a random moment unless the run has ended by then.

    Returns the exit codes, and the times of the first step and of the fault, if any.
    """
    if fault == "flip a bit":
        _flip_a_bit(run_dir, choice)
    limit = {"file_size": choice.randrange(200_000)} if fault == "small files" else {}
    run = Run(recipe, run_dir, *(["--async_save"] if choice and choice.random() < 0.5 else []), **limit)
    stepped = _watch(run, seconds=7200 if choice is None else choice.uniform(3, 25))
    if all(rank.poll() is not None for rank in run.ranks):  # done, or its files were too small
        return run.wait(), stepped, None
    struck = time.monotonic()
    _strike(run, fault, choice)
    try:
        codes = run.wait(seconds=4 * HANG_TIMEOUT + 20)
    except TimeoutError:
        # Only a launcher, which is missing here, notices a rank that was hit before it met the others.
        codes = [rank.poll() for rank in run.ranks]
        if -signal.SIGTERM not in codes and -signal.SIGUSR1 not in codes and -signal.SIGKILL not in codes:
            raise
    finally:
        for rank in run.ranks:
            rank.kill()
    return codes, stepped, struck


def _watch(run: Run, *, seconds: float) -> float | None:
    """Wait `seconds`, or until the run ends. The time of the first step, if any."""
    metrics, stepped, deadline = run.run_dir / "metrics.jsonl", None, time.monotonic() + seconds
    size = metrics.stat().st_size if metrics.exists() else 0
    while time.monotonic() < deadline and any(rank.poll() is None for rank in run.ranks):
        if stepped is None and metrics.exists() and metrics.stat().st_size > size:
            stepped = time.monotonic()
        time.sleep(0.05)
    return stepped


def _strike(run: Run, fault: str, choice: random.Random) -> None:
    victim = choice.choice(run.ranks)
    if fault == "stop file":
        (run.run_dir / "STOP").touch() if run.run_dir.exists() else victim.kill()
    elif fault == "stop one":
        victim.send_signal(signal.SIGSTOP)
        other = run.ranks[1 - run.ranks.index(victim)]
        other.wait(timeout=4 * HANG_TIMEOUT + 20)
        victim.kill()
    elif fault in SIGNALS:
        victim.send_signal(signal.SIGTERM if fault == "terminate one" else signal.SIGUSR1)
    elif fault == "kill one":
        victim.kill()
    else:
        for rank in run.ranks:
            rank.kill()


def _flip_a_bit(run_dir: Path, choice: random.Random) -> None:
    """Flip a bit in the newest checkpoint, but never in the only one: a run without any rightly refuses to resume."""
    checkpoints = completed_checkpoints(run_dir / "checkpoints")
    if len(checkpoints) < 2:
        return
    path = choice.choice(sorted(path for path in checkpoints[0].rglob("*") if path.is_file() and path.stat().st_size))
    content = bytearray(path.read_bytes())
    content[choice.randrange(len(content))] ^= 1 << choice.randrange(8)
    path.write_bytes(content)


def _losses_are_equal(run_dir: Path, untouched: Path, *, is_whole: bool) -> bool:
    """Whether the losses are equal: of all steps if the log is whole, otherwise of the steps in it."""
    found, expected = _losses(run_dir), _losses(untouched)
    return found == expected if is_whole else bool(found) and found.items() <= expected.items()


def _losses(run_dir: Path) -> dict[int, float]:
    """Losses by step."""
    return {point.step: point.loss for point in read_points(run_dir / "metrics.jsonl", TrainRecord)}


def _final_bytes(run_dir: Path) -> dict[str, bytes]:
    newest = completed_checkpoints(run_dir / "checkpoints")[0]
    return {str(path.relative_to(newest)): path.read_bytes() for path in newest.rglob("*") if path.is_file()}


if __name__ == "__main__":
    main()
