"""SafetensorsStream: write a safetensors file piece by piece, without ever holding it, or one tensor of it, whole."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

_DTYPES = {
    torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int32: "I32", torch.int64: "I64",
}  # fmt: skip


@dataclass(frozen=True)
class TensorSpec:
    """What the header says of a tensor before its bytes exist."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class SafetensorsStream:
    """Writes the header of all tensors, then their bytes in the same order; the safetensors library reads it.

    A tensor may come in pieces (a stack of experts, one by one). With enabled=False, on ranks that do not write,
    nothing happens. Leaving the context raises ValueError unless exactly the promised bytes were written.

    errors: where given, an error of the disk is put there and ends the writing, but not the work of the caller.
    """

    def __init__(
        self, path: Path, specs: dict[str, TensorSpec], *, enabled: bool = True, errors: list[OSError] | None = None
    ):
        self.path, self.specs, self.enabled, self.errors = path, specs, enabled, errors
        self.num_bytes = 0

    def __enter__(self):
        self._try(self._open)
        return self

    def write(self, tensor: torch.Tensor | None) -> None:
        """Append a tensor or a piece of one."""
        self._try(lambda: self._append(tensor))

    def __exit__(self, error_type, *_):
        self._try(self._close)
        promised = sum(spec.num_bytes for spec in self.specs.values())
        if error_type is None and self.enabled and self.num_bytes != promised:
            raise ValueError(f"{self.path} received {self.num_bytes} bytes, but its header promises {promised}")

    def _open(self) -> None:
        self._file = open(self.path, "wb")
        self._file.write(_header(self.specs))

    def _append(self, tensor: torch.Tensor) -> None:
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        self._file.write(data.data)
        self.num_bytes += len(data)

    def _close(self) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def _try(self, act: Callable[[], None]) -> None:
        if not self.enabled:
            return
        try:
            act()
        except OSError as error:
            self.enabled = False
            if self.errors is None:
                raise
            self.errors.append(error)


def _header(specs: dict[str, TensorSpec]) -> bytes:
    """The format's header: its length in 8 bytes, then JSON with each tensor's dtype, shape and byte range."""
    entries, end = {"__metadata__": {"format": "pt"}}, 0
    for name, spec in specs.items():
        if spec.dtype not in _DTYPES:
            raise ValueError(f"{name} is of {spec.dtype}, which cannot be written; use one of {list(_DTYPES)}")
        begin, end = end, end + spec.num_bytes
        entries[name] = {"dtype": _DTYPES[spec.dtype], "shape": list(spec.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text
