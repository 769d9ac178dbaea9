"""Stored state: fragments of a training state in safetensors files, read back in whatever pieces a rank needs."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from train.checkpoint.safetensors_stream import SafetensorsStream, TensorSpec

WEIGHT = "weight"


@dataclass(frozen=True)
class StateShard:
    """A run of elements of one tensor of the training state.

    name: of the parameter in the whole model, all experts in one stack. kind: WEIGHT, or the optimizer's name of a
    moment. offset: of the first element in the flattened tensor. values: a flat float32 view.
    """

    name: str
    kind: str
    offset: int
    values: torch.Tensor


def write_shards(path: Path, fragments: list[StateShard]) -> None:
    """One tensor per fragment, named by what it is a piece of."""
    specs = {_key(f.kind, f.name, f.offset): TensorSpec(f.values.dtype, f.values.shape) for f in fragments}
    with SafetensorsStream(path, specs) as stream:
        for fragment in fragments:
            stream.write(fragment.values)


class StoredState:
    """The fragments in the files of all ranks that wrote a checkpoint."""

    def __init__(self, paths: Iterable[Path]):
        self._files = [_open(path) for path in paths]
        self._pieces: dict[tuple[str, str], list[tuple[int, int, str]]] = {}
        for number, file in enumerate(self._files):
            for key in file.keys():  # noqa: SIM118 - it is no dict
                kind, offset, name = key.split(":", 2)
                self._pieces.setdefault((kind, name), []).append((int(offset), number, key))
        for pieces in self._pieces.values():
            pieces.sort()

    def read(self, kind: str, name: str, offset: int, out: torch.Tensor) -> None:
        """Fill `out`, flat, with the tensor's elements from `offset` on. ValueError where the files lack some."""
        pieces, done = self._pieces.get((kind, name), []), 0
        while done < len(out):
            index = bisect_right(pieces, offset + done, key=lambda piece: piece[0]) - 1
            found = self._slice(pieces[index], offset + done, len(out) - done) if index >= 0 else ()
            if len(found) == 0:
                raise ValueError(f"the checkpoint holds no {kind} of {name} from element {offset + done} on")
            out[done : done + len(found)].copy_(found)
            done += len(found)

    def _slice(self, piece: tuple[int, int, str], offset: int, count: int) -> torch.Tensor:
        """At most `count` elements of a piece, from the one that is number `offset` in the whole tensor."""
        begin, number, key = piece
        return self._files[number].get_slice(key)[offset - begin : offset - begin + count]


def _open(path: Path):
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:  # nothing but tensors can be in such a file, and no other kind is ever opened
        raise ValueError(f"{path} is not a safetensors file: {error}") from None


def _key(kind: str, name: str, offset: int) -> str:
    return f"{kind}:{offset}:{name}"
