"""Kill a small run repeatedly at random moments, and look for traces: `python -m tests.faults.kill_runs`.

Prints one JSON object: the numbers of kills and runs, and a list of problems, which should be empty.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import torch

from tests.faults.mini_trainer import train
from train.checkpoint.folders import quarantined_checkpoints
from train.config.run_paths import checkpoints_dir, completed_checkpoints, step_of
from train.processes.ranks import free_port

NUM_STEPS, SAVE_EVERY = 60, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(kill_runs(Path(folder), num_kills=options.kills, seed=options.seed)))


def kill_runs(folder: Path, *, num_kills: int, seed: int) -> dict:
    """Run 1, 2 or 4 ranks, restart them after every kill until the run finishes, and repeat until num_kills."""
    expected, seconds = _untouched(folder / "untouched")
    choice, kills, runs, wrong = random.Random(seed), 0, 0, []
    while kills < num_kills:
        run_dir = folder / f"run_{runs}"
        run_dir.mkdir()
        runs += 1
        ended = False
        while not ended:
            delay = choice.uniform(0, 1.2 * seconds) if kills < num_kills else 1000.0
            ended = _attempt(run_dir, choice.choice([1, 2, 2, 4]), kill_after=delay, choice=choice)
            kills += not ended
            wrong += _lost_checkpoints(run_dir)
        losses = _joined_losses(run_dir)
        if losses != expected:
            wrong.append(f"{run_dir.name}: the losses differ from those of an untouched run")
    return {"kills": kills, "runs": runs, "wrong": wrong}


def _untouched(run_dir: Path) -> tuple[dict, float]:
    run_dir.mkdir()
    start = time.perf_counter()
    assert _attempt(run_dir, 2, kill_after=1000, choice=random.Random(0))
    return _joined_losses(run_dir), time.perf_counter() - start


def _attempt(run_dir: Path, world_size: int, *, kill_after: float, choice: random.Random) -> bool:
    """Start the ranks, and kill one or all of them after `kill_after` seconds. Returns whether they finished before."""
    port = free_port()
    ranks = [_fork(rank, world_size, port, run_dir) for rank in range(world_size)]
    deadline = time.perf_counter() + kill_after
    codes: dict[int, int] = {}
    while len(codes) < world_size and time.perf_counter() < deadline:
        codes |= _reap(ranks)
        if any(codes.values()):
            raise RuntimeError(f"a rank ended with {codes} before it was killed; see {run_dir}")
        time.sleep(0.002)
    if len(codes) == world_size:
        return True
    alive = [pid for pid in ranks if pid not in codes]
    for pid in choice.choice([alive, [choice.choice(alive)]]):
        os.kill(pid, signal.SIGKILL)
    time.sleep(choice.uniform(0, 0.05))  # the others must do no harm in the meantime
    for pid in set(ranks) - set(codes):
        os.kill(pid, signal.SIGKILL)  # a process that has ended exists until it is waited for
        os.waitpid(pid, 0)
    return False


def _fork(rank: int, world_size: int, port: int, run_dir: Path) -> int:
    """A rank as a copy of this process, which has imported torch already."""
    pid = os.fork()
    if pid:
        return pid
    log = os.open(run_dir / f"rank_{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        train(
            rank=rank, world_size=world_size, port=port, run_dir=run_dir, num_steps=NUM_STEPS, save_every=SAVE_EVERY
        )  # fmt: skip
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(1)
    os._exit(0)


def _reap(pids: list[int]) -> dict[int, int]:
    """The exit statuses of processes that have ended since the last call."""
    codes = {}
    for pid in pids:
        try:
            done, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue
        if done:
            codes[pid] = status
    return codes


def _lost_checkpoints(run_dir: Path) -> list[str]:
    """Problems: a checkpoint that the run reported as saved, or a newer one, must exist."""
    saved = max((line["saved"] for line in _lines(run_dir) if "saved" in line), default=0)
    completed = completed_checkpoints(checkpoints_dir(run_dir))
    if not completed and quarantined_checkpoints(checkpoints_dir(run_dir)):
        return [f"{run_dir.name}: every checkpoint is damaged"]
    found = step_of(completed[0]) if completed else 0
    return [f"{run_dir.name}: step {saved} was saved, but {found} is the newest"] if found < saved else []


def _joined_losses(run_dir: Path) -> dict[int, str]:
    """Losses by step; of a repeated step, the last one."""
    return {line["step"]: line["loss"] for line in _lines(run_dir) if "step" in line}


def _lines(run_dir: Path) -> list[dict]:
    lines = []
    for text in (run_dir / "log.jsonl").read_text().splitlines() if (run_dir / "log.jsonl").exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:  # cut off by a kill
            continue
    return lines


if __name__ == "__main__":
    main()
