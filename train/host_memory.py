"""Host memory: keep freed blocks in the process, where training frees and allocates the same large ones every step."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Tell glibc not to give memory back to the kernel; does nothing with another C library.

    Logits over a large vocabulary are hundreds of MB. Mapping and zeroing them anew at every step took a quarter of
    the time of a small model on a CPU; accelerators have caching allocators of their own.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
