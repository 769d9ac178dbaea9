"""Stored state: the shards of a training state in safetensors files, read back in whatever slices a rank needs."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from train.checkpoint.files.hashed_file import HashedFile, Run
from train.checkpoint.files.safetensors_layout import TensorSpec, lay_out, tensor_bytes

STATE_DIR = "training"  # the folder inside a checkpoint that holds the training state
WEIGHT = "weight"


@dataclass(frozen=True)
class StateShard:
    """Consecutive elements of one tensor of the training state."""

    name: str  # the parameter's name in the whole model, where all experts of a layer are one stacked tensor
    kind: str  # WEIGHT, or the optimizer's name for a moment
    offset: int  # index of the first element in the flattened tensor
    values: torch.Tensor  # flat, float32


def write_shards(path: Path, shards: list[StateShard]) -> list[Run]:
    """Write one tensor per shard, whose name tells kind, offset and parameter; returns the runs of the file."""
    specs = {_key(s.kind, s.name, s.offset): TensorSpec(s.values.dtype, s.values.shape) for s in shards}
    with HashedFile(path) as file:
        file.write(lay_out(specs).header)
        for shard in shards:
            for block in tensor_bytes(shard.values):
                file.write(block)
    return file.runs


class StoredState:
    """The shards in the files of all ranks that wrote a checkpoint."""

    def __init__(self, paths: Iterable[Path]):
        self._files = [_open(path) for path in paths]
        # (kind, name) -> shards by offset: (offset, index of the file, key in it)
        self._shards: dict[tuple[str, str], list[tuple[int, int, str]]] = {}
        for index, file in enumerate(self._files):
            for key in file.keys():  # noqa: SIM118 - it is not a dict
                kind, offset, name = key.split(":", 2)
                self._shards.setdefault((kind, name), []).append((int(offset), index, key))
        for shards in self._shards.values():
            shards.sort()

    def read(self, kind: str, name: str, offset: int, out: torch.Tensor) -> None:
        """Fill the flat tensor `out` with the elements from `offset` on. ValueError if the files lack some of them."""
        shards, num_read = self._shards.get((kind, name), []), 0
        while num_read < len(out):
            begin = offset + num_read
            index = bisect_right(shards, begin, key=lambda shard: shard[0]) - 1
            found = self._slice(shards[index], begin, len(out) - num_read) if index >= 0 else ()
            if len(found) == 0:
                raise ValueError(f"the checkpoint lacks {kind} of {name} from element {begin} on")
            out[num_read : num_read + len(found)].copy_(found)
            num_read += len(found)

    def _slice(self, shard: tuple[int, int, str], begin: int, count: int) -> torch.Tensor:
        """At most `count` elements of a shard, beginning with element `begin` of the whole tensor."""
        offset, file, key = shard
        return self._files[file].get_slice(key)[begin - offset : begin - offset + count]


def _open(path: Path):
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:  # the format holds tensors only, and files of no other format are opened
        raise ValueError(f"{path} is not a safetensors file: {error}") from None


def _key(kind: str, name: str, offset: int) -> str:
    return f"{kind}:{offset}:{name}"
