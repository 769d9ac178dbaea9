"""A part that starts a process, and never ends."""

import subprocess
import time
from pathlib import Path


def measure(setting):
    child = subprocess.Popen(["sleep", "600"])
    (Path(setting.folder) / "child").write_text(str(child.pid))
    time.sleep(600)
