"""Events: one line of events.jsonl per failure, saying what, where, what is safe, and how to go on."""

import json
import os
import shlex
import time
from pathlib import Path

from train.checkpoint.commit import completed_checkpoints, step_of


def write_event(run_dir: str | Path, what: str, **details) -> None:
    """Append a line and flush it to the disk; whoever fails while reporting a failure only says so."""
    checkpoints = completed_checkpoints(Path(run_dir) / "checkpoints")
    event = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "what": what,
        **details,
        "last_good_step": step_of(checkpoints[0]) if checkpoints else None,
        "resume": resume_command(run_dir),
    }
    try:
        # One write of one line: the lines of several processes do not mix.
        descriptor = os.open(Path(run_dir) / "events.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, (json.dumps(event) + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        print(f"error: events.jsonl could not be written ({error}): {event}", flush=True)


def resume_command(run_dir: str | Path) -> str:
    """The command that goes on with a run, to which a launcher's own options belong (number of GPUs, hosts)."""
    run_file = shlex.quote(str(Path(run_dir) / "run.yaml"))
    return f"deepspeed launch/train.py --config {run_file} --resume auto"
