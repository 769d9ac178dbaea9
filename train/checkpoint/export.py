"""Export: a model's Hugging Face directory, to which every rank writes the weights that it saves, in their places.

So no rank reads what another has written, none waits for another, and the bytes do not depend on the number of ranks.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from models.configuration_hash_gpt import HashGPTConfig
from models.modeling_hash_gpt import HashGPTForCausalLM
from train.checkpoint.files.hashed_file import HashedFile, Run, write_hashed
from train.checkpoint.files.safetensors_layout import Layout, TensorSpec, lay_out, tensor_bytes
from train.checkpoint.files.stored_state import WEIGHT, StateShard
from train.checkpoint.model_description import describe_model

_INDEX = "model.safetensors.index.json"
_SHARED = "model-shared.safetensors"
_Place = tuple[int, Iterable[bytes | memoryview]]  # the first byte's index in the file, and the bytes


@dataclass(frozen=True)
class ModelExport:
    """A run's model, laid out once and written with every checkpoint. Weights have the precision of the training."""

    model: HashGPTForCausalLM  # only its configuration, buffers and dtype are read: a rank holds some experts only
    tokenizer_dir: Path

    def create(self, folder: Path) -> None:
        """Give the weights' files their names and sizes, in a folder that exists. Rank 0 only, before write()."""
        for name, layout in self._layouts.items():
            with open(folder / name, "xb") as file:
                file.truncate(layout.num_bytes)

    def write(self, folder: Path, shards: list[StateShard], *, rank: int) -> dict[str, list[Run]]:
        """Write the weights among the shards, and on rank 0 headers, buffers and all other files.

        Returns the runs of each file that this rank has written. Not collective.
        """
        others = {_INDEX: self._index, **self._description} if rank == 0 else {}
        runs = {name: write_hashed(folder / name, content) for name, content in others.items()}
        for name, layout in self._layouts.items():
            places = list(self._places(layout, shards, with_rest=rank == 0))
            if places:
                runs[name] = _write_places(folder / name, places)
        return runs

    def _places(self, layout: Layout, shards: list[StateShard], *, with_rest: bool) -> Iterator[_Place]:
        """What this rank writes into one file."""
        for shard in shards:
            if shard.kind == WEIGHT and shard.name in layout.begins:
                begin = layout.begins[shard.name] + shard.offset * self._dtype.itemsize
                yield begin, tensor_bytes(shard.values, self._dtype)
        if with_rest:
            yield 0, [layout.header]
            for name, buffer in self._buffers.items():
                if name in layout.begins:
                    yield layout.begins[name], tensor_bytes(buffer)

    @cached_property
    def shapes(self) -> dict[str, list[int]]:
        """The shape of every parameter of the model on one device."""
        return shapes_of(self._whole)

    @cached_property
    def _whole(self) -> HashGPTForCausalLM:
        return whole_model(self.model.config)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @cached_property
    def _buffers(self) -> dict[str, torch.Tensor]:
        """The buffers that are saved with the weights: route tables, which training does not change."""
        saved = self._whole.state_dict().keys()
        return {name: buffer for name, buffer in self.model.named_buffers() if name in saved}

    @cached_property
    def _layouts(self) -> dict[str, Layout]:
        """Each file of weights: one for the experts of each sparse layer, and one for all other parameters."""
        specs = {name: TensorSpec(self._dtype, tuple(shape)) for name, shape in self.shapes.items()}
        specs |= {name: TensorSpec(buffer.dtype, tuple(buffer.shape)) for name, buffer in self._buffers.items()}
        files: dict[str, dict[str, TensorSpec]] = {_SHARED: {}}
        for name, spec in specs.items():
            files.setdefault(_file_of(name), {})[name] = spec
        return {file: lay_out(of_file) for file, of_file in files.items()}

    @property
    def _index(self) -> bytes:
        weight_map = {name: file for file, layout in self._layouts.items() for name in layout.begins}
        return json.dumps({"metadata": {}, "weight_map": weight_map}, indent=2).encode()

    @cached_property
    def _description(self) -> dict[str, bytes]:
        return describe_model(self.model, self.tokenizer_dir, dtype=self._dtype)


def whole_model(config: HashGPTConfig) -> HashGPTForCausalLM:
    """The model on one device, without memory."""
    with torch.device("meta"):
        return HashGPTForCausalLM(config)


def shapes_of(whole: HashGPTForCausalLM) -> dict[str, list[int]]:
    return {name: list(parameter.shape) for name, parameter in whole.named_parameters()}


def _file_of(name: str) -> str:
    if ".experts." not in name:
        return _SHARED
    layer = int(name.split(".")[2])  # transformer.h.LAYER.mlp.experts.TENSOR
    return f"model-experts-{layer:05d}.safetensors"


def _write_places(path: Path, places: list[_Place]) -> list[Run]:
    with HashedFile(path, may_exist=True) as file:
        for begin, blocks in sorted(places, key=lambda place: place[0]):
            for block in blocks:
                file.write(block, begin=begin)
                begin += len(block)
    return file.runs
