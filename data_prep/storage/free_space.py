"""Compare what is about to be written with the free space of its disk, before hours are spent on it."""

import shutil
from pathlib import Path

# An estimate of tokens from bytes may be wrong by this factor: other languages, text that repeats.
SAFETY = 2


def check_free_space(folder: Path, expected_bytes: int) -> str | None:
    """Return a warning if `expected_bytes` do not fit on the folder's disk, None if they do.

    OSError if not even half of them fit, which no error of the estimate explains.
    """
    free = shutil.disk_usage(folder).free
    if expected_bytes <= free:
        return None
    sentence = f"{folder} needs about {gigabytes(expected_bytes)}, but its disk has {gigabytes(free)} left"
    if expected_bytes > SAFETY * free:
        raise OSError(f"{sentence}; make room, or give another --output")
    return f"{sentence}; the estimate may be too high, so the command goes on"


def gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB"
