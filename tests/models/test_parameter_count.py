"""The counts are those of built models, and those that the paper prints."""

import pytest
import torch

from models.configuration_hash_gpt import HashGPTConfig
from models.modeling_hash_gpt import HashGPTForCausalLM
from models.parameter_count import count_parameters, feed_forward

SMALL = {"vocab_size": 11, "n_positions": 5, "n_embd": 4, "n_layer": 3, "n_head": 2, "num_experts": 3}
SHAPES = {
    "dense": {},
    "one sparse layer": {"sparse_layers": [1]},
    "all layers sparse": {"sparse_layers": [0, 1, 2]},
    "sinusoidal positions": {"sparse_layers": [1], "position_embedding": "sinusoidal"},
    "feed-forwards of their own width": {"sparse_layers": [1], "n_inner": 7},
    "an output matrix of its own": {"sparse_layers": [1], "tie_word_embeddings": False},
}
PAPER_B2 = {
    "vocab_size": 51200,
    "n_embd": 2048,
    "n_inner": 8192,
    "n_layer": 24,
    "n_head": 16,
    "position_embedding": "sinusoidal",
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_counts_are_those_of_the_built_model(shape):
    config = HashGPTConfig(**SMALL, **shape)
    with torch.device("meta"):
        model = HashGPTForCausalLM(config)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    count = count_parameters(config)
    assert count.total == sum(sizes.values())
    assert count.experts == sum(size for name, size in sizes.items() if ".experts." in name)


def test_an_expert_is_two_matrices_with_biases():
    # 4 * 7 + 7 up, 7 * 4 + 4 down
    assert count_parameters(HashGPTConfig(**SMALL, n_inner=7)).per_expert == 28 + 7 + 28 + 4


def test_a_token_uses_one_expert_of_each_sparse_layer():
    count = count_parameters(HashGPTConfig(**SMALL, sparse_layers=[0, 2]))
    assert count.active == count.shared + 2 * count.per_expert
    assert count.total == count.shared + 2 * 3 * count.per_expert


def test_a_sparse_model_has_as_many_active_parameters_as_the_dense_one():
    dense, sparse = HashGPTConfig(**SMALL), HashGPTConfig(**SMALL, sparse_layers=[1])
    assert count_parameters(sparse).active == count_parameters(dense).total


def test_the_shared_parameters_of_the_base_comparison_are_the_papers():
    assert count_parameters(HashGPTConfig(**PAPER_B2)).shared == 1_313_460_224  # appendix B.2


def test_the_experts_of_the_base_comparison_are_the_papers():
    # Appendix B.2: an expert of three stacked sublayers, each a feed-forward and a norm of 2 * 2048.
    assert 3 * (feed_forward(2048, 8192) + 2 * 2048) == 100_706_304


def test_a_hash_layer_of_64_experts_adds_63_feed_forwards():
    # Table B.1: 751,159,296 parameters of Hash 1x64 against 222,354,432 of the dense baseline.
    dense = HashGPTConfig(n_embd=1024, n_inner=4096, n_head=16, num_experts=64)
    sparse = HashGPTConfig(n_embd=1024, n_inner=4096, n_head=16, num_experts=64, sparse_layers=[7])
    assert count_parameters(sparse).total - count_parameters(dense).total == 751_159_296 - 222_354_432
