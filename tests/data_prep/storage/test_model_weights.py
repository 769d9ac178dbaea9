"""Tensors are read from one file, from several and by an index, in every dtype that models are saved in."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from data_prep.storage.model_weights import read_embeddings, read_tensor, tensor_files

NAME = "transformer.wte.weight"
WEIGHT = torch.arange(12.0).reshape(6, 2) / 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_embeddings_of_every_dtype_are_read(tmp_path, dtype):
    save_file({NAME: WEIGHT.to(dtype), "other": torch.zeros(1)}, tmp_path / "model.safetensors")
    embeddings = read_embeddings(tmp_path, num_tokens=5)
    assert embeddings.dtype == np.float32 and embeddings.tolist() == WEIGHT[:5].tolist()


def test_a_sharded_folder_is_read_by_its_index(tmp_path):
    save_file({"other": torch.zeros(1)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({NAME: WEIGHT}, tmp_path / "model-00002-of-00002.safetensors")
    weight_map = {"other": "model-00001-of-00002.safetensors", NAME: "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert tensor_files(tmp_path)[NAME] == tmp_path / "model-00002-of-00002.safetensors"
    assert read_embeddings(tmp_path, num_tokens=6).tolist() == WEIGHT.tolist()


def test_several_files_without_an_index_are_read_together(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "1.safetensors")
    save_file({"b": torch.tensor([3])}, tmp_path / "2.safetensors")
    files = tensor_files(tmp_path)
    assert sorted(files) == ["a", "b"] and read_tensor(files["b"], "b").tolist() == [3]


def test_a_missing_tensor_is_named_with_one_that_may_be_meant(tmp_path):
    save_file({"model.embed_tokens.weight": WEIGHT}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"no tensor {NAME}; give --embeddings_name, e.g. model.embed_tokens.weight"):
        read_embeddings(tmp_path, num_tokens=6)


def test_too_few_rows_are_refused(tmp_path):
    save_file({NAME: WEIGHT}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"has shape \(6, 2\), but 7 tokens need a row each"):
        read_embeddings(tmp_path, num_tokens=7)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no .safetensors file"):
        tensor_files(tmp_path)


def test_a_truncated_file_is_refused(tmp_path):
    save_file({NAME: WEIGHT}, tmp_path / "model.safetensors")
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="ends after 47 of 48 bytes"):
        read_embeddings(tmp_path, num_tokens=6)
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="is not a complete .safetensors file"):
        tensor_files(path)
