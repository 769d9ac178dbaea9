"""Read single tensors from a model's .safetensors files, sharded or not, including bfloat16, which numpy lacks."""

import json
import reprlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

INDEX_NAME = "model.safetensors.index.json"
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "U8": "u1"}


def tensor_files(path: str | Path) -> dict[str, Path]:
    """Return tensor name -> file; `path` is a file, or a folder with one or several files or with an index of them."""
    path = Path(path)
    if path.is_file():
        return dict.fromkeys(_header(path)[0], path)
    if (path / INDEX_NAME).is_file():
        return {name: path / file for name, file in _weight_map(path / INDEX_NAME).items()}
    files = {name: file for file in sorted(path.glob("*.safetensors")) for name in _header(file)[0]}
    if not files:
        raise FileNotFoundError(f"{path} has no .safetensors file; give such a file, or the folder of a model")
    return files


def read_tensor(path: Path, name: str) -> np.ndarray:
    """Return tensor `name` of a file; bfloat16 becomes float32."""
    header, start = _header(path)
    if name not in header:
        raise ValueError(f"{path} has no tensor {name}, although {INDEX_NAME} says so; download the model again")
    entry = header[name]
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"{path}: {name} is {entry['dtype']}, but must be one of {', '.join(DTYPES)}; convert it")
    first, end = entry["data_offsets"]
    with open(path, "rb") as file:
        file.seek(start + first)
        content = file.read(end - first)
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


def _weight_map(index: Path) -> dict[str, str]:
    """Return tensor name -> name of a file in the folder of the index."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = {name: Path(file).name for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{index} is not an index of tensors ({error!r:.200}); download it again") from None
    for name, file in weight_map.items():
        if file != names[name] or not file.endswith(".safetensors"):
            raise ValueError(f"{index} names {reprlib.repr(file)}, which is not a .safetensors file of its folder")
    return weight_map


def _header(path: Path) -> tuple[dict, int]:
    """Return the header's entry of each tensor, and the position at which the tensors' bytes start."""
    try:
        with safe_open(path, framework="numpy"):  # it checks every entry, its place and the size of the file
            pass
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete .safetensors file ({str(error):.200}); copy it again") from None
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length
