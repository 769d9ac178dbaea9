"""Export: the Hugging Face directory of a model whose weights lie in the files of all ranks, one expert at a time."""

import copy
import json
import shutil
from pathlib import Path

import torch
from transformers import GenerationConfig
from transformers.dynamic_module_utils import custom_object_save

from models.configuration_hash_gpt import HashGPTConfig
from models.modeling_hash_gpt import HashGPTForCausalLM
from train.checkpoint.safetensors_stream import SafetensorsStream, TensorSpec
from train.checkpoint.stored_state import WEIGHT, StoredState

_INDEX = "model.safetensors.index.json"
_SHARED = "model-shared.safetensors"


def export_model(model: HashGPTForCausalLM, stored: StoredState, folder: Path, *, tokenizer_dir: Path) -> list[str]:
    """Write weights, configuration, modelling code and tokenizer into a folder that exists; returns the files' names.

    For one rank: reading what all ranks have written asks nothing of the others. Weights go to model-shared.safetensors
    and one file per sparse layer, in the precision of the training; of `model` only buffers and configuration count.
    """
    whole = _whole(model.config)
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in whole.state_dict()}
    dtype = next(model.parameters()).dtype
    before, files, weight_map = _names(folder), _files(whole), {}
    for file, names in files.items():
        specs = {name: TensorSpec(dtype, tuple(whole.get_parameter(name).shape)) for name in names}
        tables = buffers if file == _SHARED else {}
        specs |= {name: TensorSpec(buffer.dtype, tuple(buffer.shape)) for name, buffer in tables.items()}
        with SafetensorsStream(folder / file, specs) as stream:
            for name in names:
                _write_parameter(stream, stored, name, specs[name])
            for buffer in tables.values():
                stream.write(buffer)
        weight_map |= dict.fromkeys(specs, file)
    (folder / _INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=2))
    _write_description(model, folder, dtype=dtype, tokenizer_dir=tokenizer_dir)
    return sorted(_names(folder) - before)


def shapes_of_whole(config: HashGPTConfig) -> dict[str, list[int]]:
    """The shape of every parameter of the model on one device."""
    return {name: list(parameter.shape) for name, parameter in _whole(config).named_parameters()}


def _whole(config: HashGPTConfig) -> HashGPTForCausalLM:
    with torch.device("meta"):
        return HashGPTForCausalLM(config)


def _files(whole: HashGPTForCausalLM) -> dict[str, list[str]]:
    """The parameters in each file: those of the experts of each sparse layer apart from all others."""
    names = [name for name, _ in whole.named_parameters()]
    files = {_SHARED: [name for name in names if ".experts." not in name]}
    for layer in whole.config.sparse_layers:
        prefix = f"transformer.h.{layer}."
        files[f"model-experts-{layer:05d}.safetensors"] = [
            n for n in names if n.startswith(prefix) and ".experts." in n
        ]
    return files


def _write_parameter(stream: SafetensorsStream, stored: StoredState, name: str, spec: TensorSpec) -> None:
    """A tensor of experts goes expert by expert, any other at once."""
    pieces = spec.shape[0] if ".experts." in name else 1
    values = torch.empty(spec.num_elements // pieces)
    for piece in range(pieces):
        stored.read(WEIGHT, name, piece * len(values), values)
        stream.write(values.to(spec.dtype))


def _write_description(model: HashGPTForCausalLM, folder: Path, *, dtype: torch.dtype, tokenizer_dir: Path) -> None:
    config = copy.deepcopy(model.config)
    config.architectures, config.dtype = [type(model).__name__], dtype
    custom_object_save(model, folder, config=config)
    config.save_pretrained(folder)
    GenerationConfig.from_model_config(config).save_pretrained(folder)
    shutil.copytree(tokenizer_dir, folder, dirs_exist_ok=True)


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
