"""SafetensorsStream: a safetensors file written piece by piece, without holding it or one of its tensors whole."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

_DTYPES = {
    torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int32: "I32", torch.int64: "I64",
}  # fmt: skip


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's entry in the header, known before its bytes exist."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_elements * self.dtype.itemsize


class SafetensorsStream:
    """Writes the header of all tensors, then their bytes in the same order. The safetensors library reads the file.

    A tensor may be written in pieces (stacked experts, one by one). Closing raises ValueError unless exactly the
    promised number of bytes was written.
    """

    def __init__(self, path: Path, specs: dict[str, TensorSpec]):
        self.path, self.specs = path, specs
        self.num_bytes = 0

    def __enter__(self):
        self._file = open(self.path, "wb")
        self._file.write(_header(self.specs))
        return self

    def write(self, tensor: torch.Tensor) -> None:
        """Append a tensor or the next piece of one."""
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        self._file.write(data.data)
        self.num_bytes += len(data)

    def __exit__(self, error_type, *_):
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        promised = sum(spec.num_bytes for spec in self.specs.values())
        if error_type is None and self.num_bytes != promised:
            raise ValueError(f"{self.path} received {self.num_bytes} bytes, but its header promises {promised}")


def _header(specs: dict[str, TensorSpec]) -> bytes:
    """The header of the format: its length in 8 bytes, then JSON with dtype, shape and byte range of each tensor."""
    entries, end = {"__metadata__": {"format": "pt"}}, 0
    for name, spec in specs.items():
        if spec.dtype not in _DTYPES:
            raise ValueError(f"{name} has dtype {spec.dtype}, which cannot be written; use one of {list(_DTYPES)}")
        begin, end = end, end + spec.num_bytes
        entries[name] = {"dtype": _DTYPES[spec.dtype], "shape": list(spec.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text
