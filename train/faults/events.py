"""Events: one line of events.jsonl per failure: what happened, where, the last good step, and how to resume."""

import json
import os
import shlex
import time
from pathlib import Path

from train.config.run_paths import checkpoints_dir, completed_checkpoints, events_file, run_file, step_of


def write_event(run_dir: str | Path, what: str, **details) -> None:
    """Append a line and flush it to disk. If this fails, the event is printed instead: nothing is raised."""
    checkpoints = completed_checkpoints(checkpoints_dir(run_dir))
    event = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "what": what,
        **details,
        "last_good_step": step_of(checkpoints[0]) if checkpoints else None,
        "resume": resume_command(run_dir),
    }
    try:
        # A single write per line, so that the lines of several processes do not mix.
        descriptor = os.open(events_file(run_dir), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, (json.dumps(event) + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        print(f"error: events.jsonl could not be written ({error}): {event}", flush=True)


def resume_command(run_dir: str | Path) -> str:
    """The command that resumes a run; the launcher's own options (number of GPUs, hosts) must be added."""
    return f"deepspeed launch/train.py --config {shlex.quote(str(run_file(run_dir)))} --resume auto"
