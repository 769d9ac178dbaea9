"""Memory, batch and load of a run, as computed with a pencil."""

import numpy as np
import pytest

from models.configuration_hash_gpt import HashGPTConfig
from models.parameter_count import ParameterCount
from train.config.run_config import RunConfig
from train.dry_run import MemoryPerRank, bytes_per_rank, describe_run

# 100 shared parameters and one sparse layer of 4 experts of 20: 80 expert parameters.
COUNT = ParameterCount(shared=100, per_expert=20, total=180, active=120)

# fp32, 4 ranks, ep_size 2: a rank holds 100 + 80 / 2 = 140 parameters; ZeRO shards 100 / 4 + 40 / 2 = 45 of them.
BY_ZERO_STAGE = {
    0: MemoryPerRank(weights=4 * 140, gradients=4 * 140, optimizer=8 * 140),
    1: MemoryPerRank(weights=4 * 140, gradients=4 * 140, optimizer=12 * 45),
    2: MemoryPerRank(weights=4 * 140, gradients=4 * 45, optimizer=12 * 45),
    3: MemoryPerRank(weights=4 * 45, gradients=4 * 45, optimizer=12 * 45),
}


@pytest.mark.parametrize("zero_stage", BY_ZERO_STAGE)
def test_each_zero_stage_shards_one_more_tensor(zero_stage):
    memory = bytes_per_rank(COUNT, world_size=4, ep_size=2, zero_stage=zero_stage, precision="fp32")
    assert memory == BY_ZERO_STAGE[zero_stage]


@pytest.mark.parametrize("zero_stage", [0, 1])
def test_bf16_halves_the_weights_alone(zero_stage):
    memory = bytes_per_rank(COUNT, world_size=1, ep_size=1, zero_stage=zero_stage, precision="bf16")
    assert memory == MemoryPerRank(weights=2 * 180, gradients=4 * 180, optimizer=12 * 180)


def test_sgd_keeps_no_moments():
    options = {"world_size": 1, "ep_size": 1, "precision": "fp32", "optimizer": "sgd"}
    assert bytes_per_rank(COUNT, zero_stage=0, **options).optimizer == 0
    assert bytes_per_rank(COUNT, zero_stage=1, **options).optimizer == 4 * 180


def test_ranks_that_hold_all_experts_shard_them_over_the_world():
    memory = bytes_per_rank(COUNT, world_size=2, ep_size=1, zero_stage=3, precision="fp32")
    assert memory.weights == 4 * (50 + 40)


def test_a_shard_is_rounded_up():
    memory = bytes_per_rank(COUNT, world_size=3, ep_size=1, zero_stage=3, precision="fp32")
    assert memory.weights == 4 * (34 + 27)  # 100 / 3 and 80 / 3


def run_config(**fields) -> RunConfig:
    return RunConfig(train_data="unused", context_length=16, global_batch_size=8, micro_batch_size=2, **fields)


def test_the_description_shows_the_batch_and_the_imbalance_of_each_sparse_layer():
    network = HashGPTConfig(
        vocab_size=11, hidden_size=4, num_attention_heads=2, num_hidden_layers=3, sparse_layers=[2], num_experts=4
    )
    config = run_config(sparse_layers=[2], num_experts=4, route_table="unused", ep_size=2)
    text = describe_run(config, network, world_size=2, predicted_load=np.array([[6, 2, 1, 3]]))
    assert "2 ranks * 2 micro-batches * 2 sequences * 16 tokens = 128 tokens per step" in text
    assert "  2             2.000       1.333" in text  # 6 / 3 over experts, {6 + 2, 1 + 3} / 6 over ranks


def test_the_description_adds_the_activations_of_a_micro_batch_to_the_memory():
    network = HashGPTConfig(vocab_size=11, hidden_size=64, num_attention_heads=2, activation_function="relu")
    text = describe_run(run_config(), network, world_size=1)
    # 12 blocks * (8 * 64 + 256) elements, and 2 * 64 behind them, * 4 bytes * 2 sequences * 16 tokens = 1.1 MiB
    assert 4 * 32 * (12 * 768 + 128) / 2**20 == pytest.approx(1.1, abs=0.05)
    assert "  activations            1.1 MiB" in text


def test_a_run_with_a_learned_router_has_no_predicted_imbalance():
    network = HashGPTConfig(
        vocab_size=11,
        hidden_size=4,
        num_attention_heads=2,
        num_hidden_layers=3,
        sparse_layers=[2],
        num_experts=4,
        router="base",
    )
    text = describe_run(run_config(sparse_layers=[2], num_experts=4, router="base"), network, world_size=1)
    assert "1 * 4 experts, router=base" in text and "Predicted" not in text


def test_a_dense_run_has_no_experts_to_describe():
    text = describe_run(run_config(), HashGPTConfig(vocab_size=11, hidden_size=4, num_attention_heads=2), world_size=1)
    assert "dense" in text and "expert" not in text
