"""A file written piece by piece is the file that the safetensors library would read."""

import json

import pytest
import torch
from safetensors.torch import load_file

from train.checkpoint.files.safetensors_stream import SafetensorsStream, TensorSpec

TENSORS = {
    "matrix": torch.arange(6.0).view(2, 3),
    "half": torch.tensor([1.5, -2.0, 3.0]).bfloat16(),
    "table": torch.tensor([[1], [-1]], dtype=torch.int32),
    "scalar": torch.tensor(7),
    "nothing": torch.empty(0, 4),
}


def specs(tensors: dict) -> dict:
    return {name: TensorSpec(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def write(path, tensors: dict) -> None:
    with SafetensorsStream(path, specs(tensors)) as stream:
        for tensor in tensors.values():
            stream.write(tensor)


def assert_holds(path, tensors: dict) -> None:
    found = load_file(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_the_safetensors_library_reads_every_dtype_and_shape(tmp_path):
    write(tmp_path / "all", TENSORS)
    assert_holds(tmp_path / "all", TENSORS)


def test_a_tensor_may_come_in_pieces(tmp_path):
    stack = torch.arange(24.0).view(3, 2, 4)
    with SafetensorsStream(tmp_path / "stack", specs({"stack": stack, "scalar": TENSORS["scalar"]})) as stream:
        for piece in [*stack, TENSORS["scalar"]]:
            stream.write(piece)
    assert_holds(tmp_path / "stack", {"stack": stack, "scalar": TENSORS["scalar"]})


def test_views_and_parameters_are_written_as_they_look(tmp_path):
    transposed = torch.nn.Parameter(torch.arange(6.0).view(2, 3)).t()
    write(tmp_path / "view", {"view": transposed})
    assert_holds(tmp_path / "view", {"view": transposed.detach()})


@pytest.mark.parametrize("name", ["a", "ab", "abc", "abcdefgh"])
def test_tensors_start_at_a_multiple_of_8_bytes(tmp_path, name):
    write(tmp_path / "file", {name: torch.ones(1)})
    data = (tmp_path / "file").read_bytes()
    header_size = int.from_bytes(data[:8], "little")
    assert header_size % 8 == 0
    assert len(data) == 8 + header_size + 4
    assert json.loads(data[8 : 8 + header_size])["__metadata__"] == {"format": "pt"}  # transformers insists on it


@pytest.mark.parametrize("pieces, num_bytes", [([torch.ones(2)], 8), ([torch.ones(4)], 16), ([], 0)])
def test_any_number_of_bytes_but_the_promised_one_is_refused(tmp_path, pieces, num_bytes):
    path = tmp_path / "short"
    with pytest.raises(ValueError, match=f"{path} received {num_bytes} bytes, but its header promises 12"):
        with SafetensorsStream(path, {"three": TensorSpec(torch.float32, (3,))}) as stream:
            for piece in pieces:
                stream.write(piece)


def test_an_error_while_writing_is_not_hidden_by_the_missing_bytes(tmp_path):
    with pytest.raises(KeyError, match="mine"):
        with SafetensorsStream(tmp_path / "file", {"three": TensorSpec(torch.float32, (3,))}):
            raise KeyError("mine")
