"""Find out on a GPU whether a computation ever makes the host wait for the device."""

from collections.abc import Callable

import torch


def first_synchronisation(run: Callable[[], object], device: torch.device) -> str | None:
    """Where run() first synchronises, "" where it never does; None on a CPU, which has no queue to wait for."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""
