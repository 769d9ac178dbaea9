"""The small files of an exported model, as bytes: configuration, modelling code and tokenizer."""

import copy
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import GenerationConfig
from transformers.dynamic_module_utils import custom_object_save

from data_prep.shards.tokenizer_files import read_tokenizer_files
from models.modeling_hash_gpt import HashGPTForCausalLM


def describe_model(model: HashGPTForCausalLM, tokenizer_dir: Path, *, dtype: torch.dtype) -> dict[str, bytes]:
    """The content of each file by its name. dtype: that of the weights."""
    config = copy.deepcopy(model.config)
    config.architectures, config.dtype = [type(model).__name__], dtype
    with TemporaryDirectory() as name:  # transformers writes into folders only
        custom_object_save(model, name, config=config)
        config.save_pretrained(name)
        GenerationConfig.from_model_config(config).save_pretrained(name)
        files = {path.name: path.read_bytes() for path in sorted(Path(name).iterdir())}
    return read_tokenizer_files(tokenizer_dir) | files  # the tokenizer never replaces a file of the model
