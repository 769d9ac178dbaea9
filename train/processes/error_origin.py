"""The origin of an error: messages of this project are for users, those of libraries are for debugging."""

import traceback
from pathlib import Path

from train.processes.project_root import ROOT


def is_ours(error: Exception) -> bool:
    """Whether the error was raised by this project's code."""
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    return Path(innermost.filename).is_relative_to(ROOT) and "site-packages" not in innermost.filename
