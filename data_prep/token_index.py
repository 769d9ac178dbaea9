"""Megatron's .idx, the side-car of a .bin: how long each document is and where it begins."""

import struct
from pathlib import Path

import numpy as np

# magic, version, dtype code, number of sequences, number of document indices
HEADER = struct.Struct("<9sQBQQ")
MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
DTYPE_CODES = {"int32": 4, "uint16": 8}


def index_bytes(lengths: np.ndarray, *, dtype: str) -> bytes:
    """Return a whole .idx for documents of `lengths` tokens, each of them one sequence."""
    ends = np.cumsum(lengths, dtype=np.int64) * np.dtype(dtype).itemsize
    starts = np.concatenate([[0], ends])[: len(lengths)]
    parts = [lengths.astype("<i4"), starts.astype("<i8"), np.arange(len(lengths) + 1).astype("<i8")]
    return _header(len(lengths), dtype) + b"".join(part.tobytes() for part in parts)


def index_size(num_documents: int) -> int:
    """Return the number of bytes of an .idx."""
    return HEADER.size + num_documents * (4 + 8) + (num_documents + 1) * 8


def read_lengths(path: Path, *, num_documents: int, dtype: str) -> np.ndarray:
    """Return the documents' lengths in tokens, int32 [num_documents]; ValueError where the file says otherwise."""
    with open(path, "rb") as file:
        if file.read(HEADER.size) != _header(num_documents, dtype):
            raise ValueError(f"{path} is not the index of {num_documents} documents of {dtype} tokens: damaged")
        return np.fromfile(file, dtype="<i4", count=num_documents)


def _header(num_documents: int, dtype: str) -> bytes:
    return HEADER.pack(MAGIC, VERSION, DTYPE_CODES[dtype], num_documents, num_documents + 1)
