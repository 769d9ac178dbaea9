"""The layout of a safetensors file, known before a byte of its tensors: its header, and the place of each tensor."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

_DTYPES = {
    torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int32: "I32", torch.int64: "I64",
}  # fmt: skip
_BLOCK = 1 << 22  # elements: 16 MiB in float32


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's entry in the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Layout:
    """A file of the format: the header, then the bytes of all tensors, which the safetensors library reads."""

    header: bytes
    begins: dict[str, int]  # index in the file of each tensor's first byte, in the order of the file
    num_bytes: int  # of the file


def lay_out(specs: dict[str, TensorSpec]) -> Layout:
    """The header is its own length in 8 bytes, then JSON with dtype, shape and byte range of each tensor."""
    entries, begins, end = {"__metadata__": {"format": "pt"}}, {}, 0
    for name, spec in specs.items():
        if spec.dtype not in _DTYPES:
            raise ValueError(f"{name} has dtype {spec.dtype}, which cannot be written; use one of {list(_DTYPES)}")
        begins[name], end = end, end + spec.num_bytes
        entries[name] = {"dtype": _DTYPES[spec.dtype], "shape": list(spec.shape), "data_offsets": [begins[name], end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
    header = len(text).to_bytes(8, "little") + text
    return Layout(header, {name: len(header) + begin for name, begin in begins.items()}, len(header) + end)


def tensor_bytes(tensor: torch.Tensor, dtype: torch.dtype | None = None) -> Iterator[memoryview]:
    """The bytes of a tensor, converted to dtype block by block, so that no second copy of it is ever whole."""
    for block in tensor.detach().reshape(-1).split(_BLOCK):
        yield block.to(dtype or tensor.dtype).cpu().view(torch.uint8).numpy().data
