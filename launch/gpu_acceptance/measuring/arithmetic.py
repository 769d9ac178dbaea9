"""The arithmetic of a training step, and the share of a GPU's peak that it reaches (MFU)."""

import re

from models.configuration_hash_gpt import HashGPTConfig
from models.parameter_count import count_parameters

# Dense bf16 operations per second of tensor cores, from the makers' data sheets; the first name that fits counts.
PEAKS = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "GH200": 989e12, "H800": 989e12,
    "B200": 2250e12, "A100": 312e12, "A800": 312e12, "L40S": 362e12, "L4": 121e12,
}  # fmt: skip


def operations_per_token(network: HashGPTConfig) -> int:
    """Of a forward and a backward pass: 6 per weight that multiplies the token, and causal attention's products.

    Attention multiplies queries by keys, and weights by values: 2 products * 2 operations * S * d forward, twice that
    backward, and half of each since a token sees half of the others on average: 6 * S * d per block.
    """
    length, width = network.max_position_embeddings, network.hidden_size
    multiplied = count_parameters(network).active - length * width  # positions are only added
    return 6 * multiplied + network.num_hidden_layers * 6 * length * width


def peak_of(device_name: str) -> float | None:
    """bf16 operations per second; None for a device that is not in the list. Whole words count: an L40 is no L4."""
    return next((peak for name, peak in PEAKS.items() if re.search(rf"\b{name}\b", device_name)), None)
