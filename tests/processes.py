"""Processes that start in a tenth of a second: forks of a server that has imported the libraries."""

import gc
import multiprocessing
import os
import resource
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from train.processes.project_root import ROOT

# They take seconds to import, most of it only when an engine starts. Each process imports the project's own files.
LIBRARIES = [
    "numpy", "torch", "deepspeed", "deepspeed.runtime.zero.muon.muon_optimizer", "yaml", "matplotlib.pyplot",
    "transformers.models.gpt2.modeling_gpt2", "torch.utils.tensorboard", "safetensors.torch", "tokenizers",
]  # fmt: skip
START_METHOD = "forkserver"  # "fork": a copy of the test's own process, as tests/mutants.py needs it


class Process:
    """A function in a process of its own, with the methods of subprocess.Popen that the tests use.

    environment: all variables. log, errors: files that receive the output, by default one for both.
    file_size: limit of the size of files in bytes.
    """

    def __init__(
        self, function, *arguments, environment: dict, log: Path, errors: Path | None = None,
        file_size: int = resource.RLIM_INFINITY,
    ):  # fmt: skip
        context = multiprocessing.get_context(START_METHOD)
        if START_METHOD == "forkserver":
            context.set_forkserver_preload(LIBRARIES)
        arguments = (function, arguments, environment, [log, errors or log], file_size)
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


def run_forked(path: str, *arguments: str, environment: dict) -> subprocess.CompletedProcess:
    """`python PATH ARGUMENTS` in a forked process, with the result of subprocess.run."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "stdout"), Path(folder, "stderr")
        code = Process(run_script, path, *arguments, environment=environment, log=output, errors=errors).wait()
        return subprocess.CompletedProcess([path, *arguments], code, output.read_text(), errors.read_text())


def _run(function, arguments: tuple, environment: dict, logs: list[Path], file_size: int) -> None:
    gc.freeze()  # DeepSpeed collects garbage ten times per engine, which takes 0.3 s each with the libraries' objects
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for number, log in enumerate(logs, start=1):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))
    function(*arguments)
