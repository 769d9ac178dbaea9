"""The memory of this machine, so that a number that asks for more of it is refused before the work begins."""

import os

_GIB = 2**30


def check_memory(num_bytes: int, *, purpose: str, cure: str) -> None:
    """Raise ValueError if `num_bytes` exceed the machine's memory; `purpose` and `cure` complete the message."""
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if num_bytes > available:
        raise ValueError(
            f"{purpose} takes {num_bytes / _GIB:,.1f} GiB of memory, but this machine has {available / _GIB:,.1f} GiB; "
            f"{cure}"
        )
