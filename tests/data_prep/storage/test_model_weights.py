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
    for content in (path.read_bytes(), b"short", b"", bytes(64)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="model.safetensors is not a complete .safetensors file"):
            tensor_files(path)


def write_header(path, header, num_bytes=8):
    content = json.dumps(header).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content + bytes(num_bytes))


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "I64", "shape": [1], "data_offsets": [-8, 0]},
        {"dtype": "I64", "shape": [1], "data_offsets": [-8, 8]},
        {"dtype": "I64", "shape": [2**62], "data_offsets": [0, 8]},
        {"dtype": "I64", "data_offsets": [0, 8]},
        {"dtype": "I64", "shape": [1], "data_offsets": [0, 2**40]},
        {"dtype": "X64", "shape": [1], "data_offsets": [0, 8]},
        [],
        None,
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, entry):
    write_header(tmp_path / "model.safetensors", {NAME: entry})
    with pytest.raises(ValueError, match="model.safetensors is not a complete .safetensors file"):
        tensor_files(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "[" * 9999])
def test_an_index_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match="model.safetensors.index.json is not an index of tensors"):
        tensor_files(tmp_path)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "..", "a/b.safetensors", "x.bin"])
def test_an_index_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="index.json names .*, which is not a .safetensors file of its folder"):
        tensor_files(tmp_path)


def test_a_tensor_that_only_the_index_has_is_named(tmp_path):
    save_file({"other": WEIGHT}, tmp_path / "1.safetensors")
    index = json.dumps({"weight_map": {NAME: "1.safetensors"}})
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=f"1.safetensors has no tensor {NAME}, although model.safetensors.index.json"):
        read_embeddings(tmp_path, num_tokens=5)
