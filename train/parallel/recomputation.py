"""Recomputed blocks find what their all-to-alls received the first time, so that nothing is sent twice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

_pass: "_Pass | None" = None  # of the block that runs now; a global, as a backward pass has a thread of its own


class _Pass:
    """The tensors that one block received, in order: kept in its forward pass, taken when it is recomputed."""

    def __init__(self):
        self._received: list[torch.Tensor] = []
        self._recomputes = False

    def get(self, receive: Callable[[], torch.Tensor]) -> torch.Tensor:
        if self._recomputes:
            return self._received.pop(0)
        self._received.append(receive())
        return self._received[-1].detach()

    @contextmanager
    def running(self, *, recomputes: bool) -> Iterator[None]:
        global _pass
        before, _pass, self._recomputes = _pass, self, recomputes
        try:
            yield
        finally:
            _pass = before


def keep_received():
    """The contexts of a block's forward pass and of its recomputation, as torch.utils.checkpoint takes them."""
    block = _Pass()
    return block.running(recomputes=False), block.running(recomputes=True)


def received_once(receive: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The result of receive(), a collective, which is not called if the block that runs now is recomputed."""
    return receive() if _pass is None else _pass.get(receive)


def in_checkpointed_block() -> bool:
    """Whether a block that keep_received() serves runs now, for the first time or again."""
    return _pass is not None
