"""Megatron's .idx, the companion of a .bin: the length and the start of each document."""

import struct
from pathlib import Path

import numpy as np
import xxhash

# magic, version, dtype code, number of sequences, number of document indices
HEADER = struct.Struct("<9sQBQQ")
MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
DTYPE_CODES = {"int32": 4, "uint16": 8}


def index_bytes(lengths: np.ndarray, *, dtype: str) -> bytes:
    """Return a whole .idx for documents of `lengths` tokens, each one sequence in Megatron's terms."""
    ends = np.cumsum(lengths, dtype=np.int64) * np.dtype(dtype).itemsize
    starts = np.concatenate([[0], ends])[: len(lengths)]
    parts = [lengths.astype("<i4"), starts.astype("<i8"), np.arange(len(lengths) + 1).astype("<i8")]
    return _header(len(lengths), dtype) + b"".join(part.tobytes() for part in parts)


def index_size(num_documents: int) -> int:
    """Return the number of bytes of an .idx."""
    return HEADER.size + num_documents * (4 + 8) + (num_documents + 1) * 8


def read_lengths(path: Path, *, num_documents: int, xxh3: str) -> np.ndarray:
    """Return the documents' lengths in tokens, int32 [num_documents]; ValueError if the file has changed."""
    content = path.read_bytes()
    check_index(path, content, xxh3=xxh3)
    return np.frombuffer(content, dtype="<i4", count=num_documents, offset=HEADER.size)


def check_index(path: Path, content: bytes, *, xxh3: str) -> None:
    """Raise ValueError if `content` is not the .idx that was written."""
    found = index_digest(content)
    if found != xxh3:
        raise ValueError(
            f"{path} is damaged: it has digest {found} but was written with {xxh3}; copy it again or tokenize again"
        )


def index_digest(content: bytes) -> str:
    """Return the xxh3-64 of a whole .idx, 16 hex digits."""
    return xxhash.xxh3_64_hexdigest(content)


def _header(num_documents: int, dtype: str) -> bytes:
    return HEADER.pack(MAGIC, VERSION, DTYPE_CODES[dtype], num_documents, num_documents + 1)
