"""Processes that start in a tenth of a second: forks of a server that has imported the libraries."""

import gc
import multiprocessing
import os
import resource
import runpy
import sys
from pathlib import Path

from train.processes.project_root import ROOT

# What takes seconds to import, most of it only when an engine starts. Each process imports the project's own files.
LIBRARIES = [
    "numpy", "torch", "deepspeed", "deepspeed.runtime.zero.muon.muon_optimizer", "yaml", "matplotlib.pyplot",
    "transformers.models.gpt2.modeling_gpt2", "torch.utils.tensorboard", "safetensors.torch", "tokenizers",
]  # fmt: skip
START_METHOD = "forkserver"  # "fork": a copy of the test's own process, as tests/mutants.py needs it


class Process:
    """A function in a process of its own, with the methods of subprocess.Popen that the tests use.

    environment: all variables. log: the file that receives the output. file_size: limit of files in bytes.
    """

    def __init__(self, function, *arguments, environment: dict, log: Path, file_size: int = resource.RLIM_INFINITY):
        context = multiprocessing.get_context(START_METHOD)
        if START_METHOD == "forkserver":
            context.set_forkserver_preload(LIBRARIES)
        arguments = (function, arguments, environment, str(log), file_size)
        self._process = context.Process(target=_run, args=arguments)
        self._process.start()

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. TimeoutError if the process runs for longer than `timeout` seconds."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"process {self._process.pid} still runs after {timeout} seconds")
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        if self.poll() is None:
            self._process.kill()


def run_script(path: str, *arguments: str) -> None:
    """What `python PATH ARGUMENTS` does, in this process."""
    sys.argv = [path, *arguments]
    sys.path.insert(0, str(ROOT / Path(path).parent))
    runpy.run_path(str(ROOT / path), run_name="__main__")


def _run(function, arguments: tuple, environment: dict, log: str, file_size: int) -> None:
    gc.freeze()  # DeepSpeed collects garbage ten times per engine, which takes 0.3 s each with the libraries' objects
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))
    function(*arguments)
