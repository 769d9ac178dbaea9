"""Run one part in a process of its own under its time limit; however it ends, it has a result."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from launch.gpu_acceptance.measuring.setting import Setting
from launch.gpu_acceptance.part_list import Part
from launch.gpu_acceptance.results import PartResult, log_path, read_result, result_path, write_result
from train.processes.project_root import ROOT

_TAIL = 2000  # characters of the log that an error quotes


def run_in_process(part: Part, setting: Setting) -> PartResult:
    """The result that the part wrote; if it crashed or was killed at its limit, one that says so."""
    result_path(part.name, setting).unlink(missing_ok=True)
    start = time.monotonic()
    status = _run(part, setting)
    result = read_result(part.name, setting)
    if status == 0 and result:
        return result
    what = f"killed after its limit of {part.limit_seconds:g} s" if status is None else f"exit status {status}"
    tail = log_path(part.name, setting).read_text(errors="replace")[-_TAIL:].strip()
    figures = result.figures if result else []
    result = PartResult(part.name, time.monotonic() - start, figures, f"{what}; its output ends with\n{tail}")
    write_result(result, setting)
    return result


def _run(part: Part, setting: Setting) -> int | None:
    """The exit status; None if the time limit was exceeded."""
    command = [sys.executable, "-m", "launch.gpu_acceptance.run_part", part.name, part.module]
    command.append(json.dumps(dataclasses.asdict(setting)))
    environment = {**os.environ, "DS_ACCELERATOR": setting.device, "TOKENIZERS_PARALLELISM": "false"}
    path = log_path(part.name, setting)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            return process.wait(part.limit_seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that the part started
            process.wait()
