"""Read single tensors from a model's .safetensors files, sharded or not, including bfloat16, which numpy lacks."""

import json
from pathlib import Path

import numpy as np

INDEX_NAME = "model.safetensors.index.json"
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "U8": "u1"}


def tensor_files(path: str | Path) -> dict[str, Path]:
    """Return tensor name -> file; `path` is a file, or a folder with one or several files or with an index of them."""
    path = Path(path)
    if path.is_file():
        return dict.fromkeys(_header(path)[0], path)
    if (path / INDEX_NAME).is_file():
        weight_map = json.loads((path / INDEX_NAME).read_text(encoding="utf-8"))["weight_map"]
        return {name: path / file for name, file in weight_map.items()}
    files = {name: file for file in sorted(path.glob("*.safetensors")) for name in _header(file)[0]}
    if not files:
        raise FileNotFoundError(f"{path} has no .safetensors file; give such a file, or the folder of a model")
    return files


def read_tensor(path: Path, name: str) -> np.ndarray:
    """Return tensor `name` of a file; bfloat16 becomes float32."""
    header, start = _header(path)
    entry = header[name]
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"{path}: {name} is {entry['dtype']}, but must be one of {', '.join(DTYPES)}; convert it")
    first, end = entry["data_offsets"]
    with open(path, "rb") as file:
        file.seek(start + first)
        content = file.read(end - first)
    if len(content) != end - first:
        raise ValueError(f"{path}: {name} ends after {len(content)} of {end - first} bytes; copy the file again")
    array = np.frombuffer(content, dtype=DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return (array.astype("<u4") << 16).view("<f4") if entry["dtype"] == "BF16" else array


def read_embeddings(model: str | Path, *, num_tokens: int, name: str = "transformer.wte.weight") -> np.ndarray:
    """Return the embeddings of the first `num_tokens` ids, float32 [num_tokens, hidden_size]; the rest is padding."""
    files = tensor_files(model)
    if name not in files:
        raise ValueError(f"{model} has no tensor {name}; give --embeddings_name, e.g. {_like(files)}")
    embeddings = read_tensor(files[name], name).astype(np.float32)
    if embeddings.ndim != 2 or len(embeddings) < num_tokens:
        raise ValueError(f"{model}: {name} has shape {embeddings.shape}, but {num_tokens} tokens need a row each")
    return embeddings[:num_tokens]


def _like(files: dict[str, Path]) -> str:
    return next((name for name in files if "emb" in name or "wte" in name), next(iter(files)))


def _header(path: Path) -> tuple[dict, int]:
    """Return the header's entry of each tensor, and the position at which the tensors' bytes start."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= path.stat().st_size - 8:
            raise ValueError(f"{path} is not a complete .safetensors file; copy it again")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length
