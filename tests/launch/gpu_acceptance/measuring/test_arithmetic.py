"""The operations of a step by hand, and the peaks of known cards."""

import pytest

from launch.gpu_acceptance.measuring.arithmetic import operations_per_token, peak_of
from launch.gpu_acceptance.measuring.engines import network


def test_operations_of_a_small_model():
    config = network(
        vocab_size=10, max_position_embeddings=4, hidden_size=2, num_hidden_layers=1, num_attention_heads=1,
        sparse_layers=[0], num_experts=8,
    )  # fmt: skip
    # attention 4*2*2 + 4*2 = 24, one expert 2*2*8 + 8 + 2 = 42, three norms 3*4 = 12, output matrix 10*2 = 20
    assert operations_per_token(config) == 6 * (24 + 42 + 12 + 20) + 6 * 4 * 2


def test_peaks_by_name():
    assert peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_of("NVIDIA H100 PCIe") == 756e12
    assert peak_of("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_of("CPU, 2 threads") is None


@pytest.mark.parametrize("name", ["NVIDIA L40", "NVIDIA GB200", "NVIDIA H20"])
def test_a_card_that_is_not_in_the_list_has_no_peak_of_another(name):
    assert peak_of(name) is None
