"""Write and read .safetensors files of numpy integers, with the same bytes on every run.

safetensors' own `save` orders metadata at random, so the header is written here; any safetensors library reads it.
Its metadata records the digest of the whole file, so that a changed bit, of tensors or header, is detected.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open

from data_prep.storage.atomic_file import atomic_file

DTYPE_NAMES = {np.dtype("<i4"): "I32", np.dtype("<i8"): "I64"}
FILE_DIGEST = "file_xxh3"  # in the metadata: xxh3-128 of the whole file with 32 zeros in place of the digest
ZEROS = "0" * 32


def write_tensors(path: str | Path, tensors: dict[str, np.ndarray], *, metadata: dict[str, str]) -> None:
    """Write `tensors` (int32 or int64), `metadata` and the digest of the file to `path`, atomically."""
    arrays = {name: _little_endian(tensors[name]) for name in sorted(tensors)}
    header = _header(arrays, metadata=metadata | {FILE_DIGEST: ZEROS})
    digest = xxhash.xxh3_128(header)
    for array in arrays.values():
        digest.update(array)
    with atomic_file(path) as file:
        file.write(header.replace(_entry(ZEROS), _entry(digest.hexdigest()), 1))
        for array in arrays.values():
            file.write(array.tobytes())


def read_tensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors and the metadata of `path`; ValueError if its digest is missing or wrong."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete .safetensors file ({error}); write it again") from error
    if FILE_DIGEST not in metadata:
        raise ValueError(f"{path} names no {FILE_DIGEST}: it is damaged or from another program; write it again")
    _check_digest(path, metadata[FILE_DIGEST])
    return tensors, metadata


def check_schema(path: str | Path, metadata: dict[str, str], *, kind: str, schema_version: int) -> None:
    """Refuse a file of another kind, or of another version."""
    found = metadata.get("kind", "unknown content"), metadata.get("schema_version")
    if found != (kind, str(schema_version)):
        raise ValueError(
            f"{path} holds {found[0]} (schema_version {found[1]}), but {kind} "
            f"(schema_version {schema_version}) is needed; give another file or write it again"
        )


def _check_digest(path: str | Path, written: str) -> None:
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        length = file.read(8)
        header = file.read(int.from_bytes(length, "little"))
        digest.update(length + header.replace(_entry(written), _entry(ZEROS), 1))
        while content := file.read(2**20):
            digest.update(content)
    if digest.hexdigest() != written:
        raise ValueError(
            f"{path} is damaged: it has digest {digest.hexdigest()} but was written with {written}; "
            "copy it or write it again"
        )


def _entry(digest: str) -> bytes:
    """Return the digest's entry in the header; quotes within strings are escaped, so it occurs there only once."""
    return f'"{FILE_DIGEST}":"{digest}"'.encode()


def check_range(name: str, values: np.ndarray, least: int, most: int) -> None:
    """Raise ValueError for values outside least..most."""
    lowest, highest = int(values.min(initial=most)), int(values.max(initial=least))
    if lowest < least or highest > most:
        raise ValueError(f"{name} holds {lowest}..{highest}, but its values must be in {least}..{most}")


def tensor_digest(tensor: np.ndarray) -> str:
    """Return "sha256:<64 hex>" of the shape as text ("2,50257,1"), a newline, and the int32 little-endian bytes."""
    shape = ",".join(str(size) for size in tensor.shape)
    return "sha256:" + hashlib.sha256(f"{shape}\n".encode() + tensor.astype("<i4").tobytes()).hexdigest()


def _little_endian(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _header(arrays: dict[str, np.ndarray], *, metadata: dict[str, str]) -> bytes:
    """Return 8 bytes of length, then JSON padded with spaces, so that the tensors start at a multiple of 8 bytes."""
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        entries[name] = {"dtype": DTYPE_NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
