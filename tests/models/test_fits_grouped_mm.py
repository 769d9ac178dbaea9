"""Grouped matrix products are chosen only on devices, and for tensors, that have kernels for them."""

from types import SimpleNamespace

import pytest
import torch

from models.grouped import _fits_grouped_mm

pytestmark = pytest.mark.skipif(not hasattr(torch.nn.functional, "grouped_mm"), reason="torch has had it since 2.10")
HOPPER = (9, 0)


@pytest.fixture
def on_device(monkeypatch):
    """Let all GPUs be of one compute capability."""
    return lambda capability: monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)


def tensor(*, is_cuda=True, dtype=torch.bfloat16, numel=1, width=16, address=32):
    """A stand-in for a tensor on a GPU."""
    return SimpleNamespace(
        is_cuda=is_cuda, dtype=dtype, numel=lambda: numel, shape=(3, width), data_ptr=lambda: address, device="cuda:0"
    )  # fmt: skip


@pytest.mark.parametrize(
    "capability, fits", [(HOPPER, True), ((10, 0), True), ((8, 0), False), ((8, 9), False), ((12, 0), False)]
)
def test_bfloat16_in_rows_of_16_bytes_fits_where_torch_has_kernels(on_device, capability, fits):
    on_device(capability)
    assert _fits_grouped_mm(tensor(), tensor(numel=100, width=8, address=16)) is fits


@pytest.mark.parametrize(
    "other", [{"is_cuda": False}, {"dtype": torch.float32}, {"numel": 0}, {"width": 12}, {"address": 8}], ids=str
)
def test_one_tensor_of_another_kind_does_not(on_device, other):
    on_device(HOPPER)
    assert not _fits_grouped_mm(tensor(), tensor(**other))
