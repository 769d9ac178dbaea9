"""A file written by its layout, in any order and in pieces, is the file that the safetensors library would read."""

import json

import pytest
import torch
from safetensors.torch import load_file

from train.checkpoint.files import safetensors_layout
from train.checkpoint.files.safetensors_layout import TensorSpec, lay_out, tensor_bytes

TENSORS = {
    "matrix": torch.arange(6.0).view(2, 3),
    "half": torch.tensor([1.5, -2.0, 3.0]).bfloat16(),
    "table": torch.tensor([[1], [-1]], dtype=torch.int32),
    "scalar": torch.tensor(7),
    "nothing": torch.empty(0, 4),
}
LAYOUT = lay_out({name: TensorSpec(tensor.dtype, tuple(tensor.shape)) for name, tensor in TENSORS.items()})


def joined(tensor: torch.Tensor, dtype: torch.dtype | None = None) -> bytes:
    return b"".join(tensor_bytes(tensor, dtype))


def test_the_safetensors_library_reads_every_dtype_and_shape(tmp_path):
    content = bytearray(LAYOUT.num_bytes)
    content[: len(LAYOUT.header)] = LAYOUT.header
    for name, tensor in reversed(TENSORS.items()):
        data = joined(tensor)
        content[LAYOUT.begins[name] : LAYOUT.begins[name] + len(data)] = data
    (tmp_path / "all").write_bytes(content)
    found = load_file(tmp_path / "all")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


@pytest.mark.parametrize("name", ["a", "ab", "abc", "abcdefgh"])
def test_tensors_start_at_a_multiple_of_8_bytes(name):
    layout = lay_out({name: TensorSpec(torch.float32, (1,))})
    assert layout.begins == {name: len(layout.header)} and layout.begins[name] % 8 == 0
    assert layout.num_bytes == len(layout.header) + 4
    assert int.from_bytes(layout.header[:8], "little") == len(layout.header) - 8
    assert json.loads(layout.header[8:])["__metadata__"] == {"format": "pt"}  # transformers insists on it


def test_a_dtype_that_the_format_lacks_is_refused():
    with pytest.raises(ValueError, match="noise has dtype torch.complex64, which cannot be written"):
        lay_out({"noise": TensorSpec(torch.complex64, (1,))})


def test_views_and_parameters_are_written_as_they_look():
    transposed = torch.nn.Parameter(torch.arange(6.0).view(2, 3)).t()
    assert joined(transposed) == torch.tensor([0.0, 3, 1, 4, 2, 5]).numpy().tobytes()


def test_a_tensor_is_converted_block_by_block(monkeypatch):
    monkeypatch.setattr(safetensors_layout, "_BLOCK", 4)
    values = torch.linspace(0, 1, 10)
    assert [len(block) for block in tensor_bytes(values, torch.bfloat16)] == [8, 8, 4]
    assert joined(values, torch.bfloat16) == values.bfloat16().view(torch.uint8).numpy().tobytes()
