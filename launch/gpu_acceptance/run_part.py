"""One part of the acceptance in a process of its own: `python -m launch.gpu_acceptance.run_part NAME MODULE JSON`."""

import gc
import importlib
import json
import sys
import time

from launch.gpu_acceptance.measuring.setting import Setting
from launch.gpu_acceptance.results import PartResult, write_result


def run_part(name: str, module: str, setting: Setting) -> None:
    """Measure, and write the result at once."""
    start = time.perf_counter()
    measure = importlib.import_module(module).measure
    gc.freeze()  # DeepSpeed collects garbage ten times per engine, which takes 0.3 s each with the libraries' objects
    figures = measure(setting)
    write_result(PartResult(name, time.perf_counter() - start, figures), setting)


if __name__ == "__main__":
    run_part(*sys.argv[1:3], Setting(**json.loads(sys.argv[3])))
