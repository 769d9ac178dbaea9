"""Export: write a model's Hugging Face directory from the files of all ranks, one expert at a time."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig
from transformers.dynamic_module_utils import custom_object_save

from data_prep.shards.tokenizer_files import add_tokenizer_files
from models.configuration_hash_gpt import HashGPTConfig
from models.modeling_hash_gpt import HashGPTForCausalLM
from train.checkpoint.files.safetensors_stream import SafetensorsStream, TensorSpec
from train.checkpoint.files.stored_state import WEIGHT, StoredState

_INDEX = "model.safetensors.index.json"
_SHARED = "model-shared.safetensors"


@dataclass(frozen=True)
class ModelExport:
    """The parts of an exported model besides its weights."""

    model: HashGPTForCausalLM  # only its configuration, buffers and dtype are read: a rank holds some experts only
    tokenizer_dir: Path

    def write(self, folder: Path, stored: StoredState) -> list[str]:
        """Write weights, configuration, modelling code and tokenizer into a folder that exists; returns the new files.

        Not collective: one rank reads what all ranks have stored. Weights go to model-shared.safetensors and one file
        per sparse layer, in the precision of the training.
        """
        before, dtype = _names(folder), next(self.model.parameters()).dtype
        weight_map = _write_weights(self.model, stored, folder, dtype)
        (folder / _INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=2))
        _write_description(self.model, folder, dtype=dtype)
        add_tokenizer_files(self.tokenizer_dir, folder)
        return sorted(_names(folder) - before)


def shapes_of_whole(config: HashGPTConfig) -> dict[str, list[int]]:
    """The shape of every parameter of the model on one device."""
    return {name: list(parameter.shape) for name, parameter in _whole(config).named_parameters()}


def _whole(config: HashGPTConfig) -> HashGPTForCausalLM:
    with torch.device("meta"):
        return HashGPTForCausalLM(config)


def _write_weights(model: HashGPTForCausalLM, stored: StoredState, folder: Path, dtype: torch.dtype) -> dict[str, str]:
    """Returns the file of every tensor."""
    whole, weight_map = _whole(model.config), {}
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in whole.state_dict()}
    for file, names in _files(whole).items():
        specs = {name: TensorSpec(dtype, tuple(whole.get_parameter(name).shape)) for name in names}
        tables = buffers if file == _SHARED else {}
        specs |= {name: TensorSpec(buffer.dtype, tuple(buffer.shape)) for name, buffer in tables.items()}
        with SafetensorsStream(folder / file, specs) as stream:
            for name in names:
                _write_parameter(stream, stored, name, specs[name])
            for buffer in tables.values():
                stream.write(buffer)
        weight_map |= dict.fromkeys(specs, file)
    return weight_map


def _files(whole: HashGPTForCausalLM) -> dict[str, list[str]]:
    """The parameters in each file: one file for the experts of each sparse layer, and one for all other parameters."""
    names = [name for name, _ in whole.named_parameters()]
    files = {_SHARED: [name for name in names if ".experts." not in name]}
    for layer in whole.config.sparse_layers:
        prefix = f"transformer.h.{layer}."
        files[f"model-experts-{layer:05d}.safetensors"] = [
            n for n in names if n.startswith(prefix) and ".experts." in n
        ]
    return files


def _write_parameter(stream: SafetensorsStream, stored: StoredState, name: str, spec: TensorSpec) -> None:
    """Write a tensor of stacked experts expert by expert, and any other tensor at once."""
    pieces = spec.shape[0] if ".experts." in name else 1
    values = torch.empty(spec.num_elements // pieces)
    for piece in range(pieces):
        stored.read(WEIGHT, name, piece * len(values), values)
        stream.write(values.to(spec.dtype))


def _write_description(model: HashGPTForCausalLM, folder: Path, *, dtype: torch.dtype) -> None:
    """Write configuration and modelling code."""
    config = copy.deepcopy(model.config)
    config.architectures, config.dtype = [type(model).__name__], dtype
    custom_object_save(model, folder, config=config)
    config.save_pretrained(folder)
    GenerationConfig.from_model_config(config).save_pretrained(folder)


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
