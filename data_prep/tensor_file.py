"""Write and read .safetensors files of numpy integers whose bytes are the same on every run.

safetensors' own `save` orders metadata at random, so the header is written here; any safetensors library reads it.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from data_prep.atomic_file import atomic_file

DTYPE_NAMES = {np.dtype("<i4"): "I32", np.dtype("<i8"): "I64"}


def write_tensors(path: str | Path, tensors: dict[str, np.ndarray], *, metadata: dict[str, str]) -> None:
    """Write `tensors` (int32 or int64) and `metadata` to `path`, atomically."""
    arrays = {name: _little_endian(tensors[name]) for name in sorted(tensors)}
    with atomic_file(path) as file:
        file.write(_header(arrays, metadata=metadata))
        for array in arrays.values():
            file.write(array.tobytes())


def read_tensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors and the metadata of `path`; ValueError where it is no whole .safetensors file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole .safetensors file ({error}); make it again") from error


def check_schema(path: str | Path, metadata: dict[str, str], *, schema_versions: tuple[int, ...], kind: str) -> None:
    """Refuse a file of another kind or of a version that this code does not read."""
    found, readable = metadata.get("schema_version"), [str(version) for version in schema_versions]
    if metadata.get("kind") != kind or found not in readable:
        raise ValueError(
            f"{path} holds {metadata.get('kind', 'unknown content')} (schema_version {found}), but {kind} "
            f"(schema_version {' or '.join(readable)}) is needed; give another file or make it again"
        )


def check_range(name: str, values: np.ndarray, least: int, most: int) -> None:
    """Refuse numbers outside least..most."""
    lowest, highest = int(values.min(initial=most)), int(values.max(initial=least))
    if lowest < least or highest > most:
        raise ValueError(f"{name} holds {lowest}..{highest}, but only {least}..{most} exist")


def tensor_digest(tensor: np.ndarray) -> str:
    """Return "sha256:<64 hex>" of the shape as text ("2,50257,1"), a newline, and the int32 little-endian bytes."""
    shape = ",".join(str(size) for size in tensor.shape)
    return "sha256:" + hashlib.sha256(f"{shape}\n".encode() + tensor.astype("<i4").tobytes()).hexdigest()


def _little_endian(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _header(arrays: dict[str, np.ndarray], *, metadata: dict[str, str]) -> bytes:
    """8 bytes of length, then JSON padded with spaces, so that the tensors start at a multiple of 8 bytes."""
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        entries[name] = {"dtype": DTYPE_NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
