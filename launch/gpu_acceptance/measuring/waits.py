"""Waits: the calls after which the host stands still until the device has finished, counted on a CPU too."""

from collections import Counter
from contextlib import contextmanager

import torch
from deepspeed.accelerator import get_accelerator
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# Operations whose result, or its size, the host has to know before it goes on.
_OPERATIONS = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.bincount, aten.equal, aten._unique2,
    aten.unique_consecutive, aten.unique_dim,
}  # fmt: skip
_METHODS = {torch.Tensor.tolist: "tolist", torch.Tensor.numpy: "numpy", torch.Tensor.cpu: "cpu"}


def _is_on_device(arguments: tuple) -> bool:
    """Whether the first argument lies where the host would have to wait; on a CPU, everything does."""
    return isinstance(arguments[0], torch.Tensor) and arguments[0].device.type == get_accelerator().device_name()


class _Operations(TorchDispatchMode):
    def __init__(self, waits: Counter):
        super().__init__()
        self._waits = waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet, kwargs = func.overloadpacket, kwargs or {}
        if args and _is_on_device(args):
            self._count(packet, args, kwargs)
        return func(*args, **kwargs)

    def _count(self, packet, args: tuple, kwargs: dict) -> None:
        if packet in _OPERATIONS:
            self._waits[packet.__name__] += 1
        if packet is aten.repeat_interleave and kwargs.get("output_size") is None:
            self._waits["repeat_interleave"] += 1
        if packet in (aten.index, aten.index_put, aten.index_put_) and _selects(args[1]):
            self._waits["index by a mask"] += 1


def _selects(indices) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


class _Methods(TorchFunctionMode):
    def __init__(self, waits: Counter):
        super().__init__()
        self._waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in _METHODS and _is_on_device(args):
            self._waits[_METHODS[func]] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def count_waits():
    """The waits of this thread by the name of the call, its backward passes included."""
    waits, accelerator = Counter(), get_accelerator()
    synchronize = accelerator.synchronize
    accelerator.synchronize = lambda *_: waits.update(["synchronize"])
    try:
        with _Operations(waits), _Methods(waits):
            yield waits
    finally:
        accelerator.synchronize = synchronize
