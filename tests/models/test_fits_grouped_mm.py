"""Grouped matrix products are chosen only for tensors that their kernels take."""

from types import SimpleNamespace

import pytest
import torch

from models.grouped import _fits_grouped_mm

pytestmark = pytest.mark.skipif(not hasattr(torch.nn.functional, "grouped_mm"), reason="torch has had it since 2.10")


def tensor(*, is_cuda=True, dtype=torch.bfloat16, numel=1, width=16, address=32):
    """A stand-in for a tensor on a GPU."""
    return SimpleNamespace(
        is_cuda=is_cuda, dtype=dtype, numel=lambda: numel, shape=(3, width), data_ptr=lambda: address
    )  # fmt: skip


def test_bfloat16_on_a_gpu_in_rows_of_16_bytes_fits():
    assert _fits_grouped_mm(tensor(), tensor(numel=100, width=8, address=16))


@pytest.mark.parametrize(
    "other", [{"is_cuda": False}, {"dtype": torch.float32}, {"numel": 0}, {"width": 12}, {"address": 8}], ids=str
)
def test_one_tensor_of_another_kind_does_not(other):
    assert not _fits_grouped_mm(tensor(), tensor(**other))
