"""The hash layer keeps its measured speed beside the dense layer and DeepSpeed's, within wide margins."""

import pytest

from launch.benchmark.layers.options import read_options
from launch.benchmark.main import measure_layers

pytestmark = [pytest.mark.slow, pytest.mark.distributed]  # minutes of measuring, on a machine that does nothing else


@pytest.fixture(scope="module")
def rows():
    """By (ep_size, experts, variant); the shape of a layer of the paper, on 8192 tokens per rank."""
    flags = (
        "--device cpu --hidden_size 512 --tokens_per_rank 8192 --repetitions 7 --warmup 1 --variants deepspeed_dropless"
    )
    measured = measure_layers(read_options([*flags.split(), *"--sweep experts --sweep_experts 16 64".split()]))
    return {(row.ep_size, row.num_experts, row.variant): row for row in measured}


def test_the_hash_layer_takes_at_most_1_3_times_the_dense_one(rows):
    assert rows[1, 16, "hash"].ratio.median <= 1.3


@pytest.mark.parametrize("ep_size", [1, 2])
def test_the_hash_layer_is_1_3_times_faster_than_deepspeed_at_64_experts(rows, ep_size):
    ours, theirs = (rows[ep_size, 64, name].total.median for name in ("hash", "deepspeed_dropless"))
    assert theirs / ours >= 1.3


@pytest.mark.parametrize("num_experts", [16, 64])
def test_only_tokens_of_remote_experts_travel(rows, num_experts):
    row = rows[2, num_experts, "hash"]
    assert row.sent == row.sent_bound > 0
