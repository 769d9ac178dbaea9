"""The counts are those of built models, and those that the paper prints."""

import pytest
import torch

from models.configuration_hash_gpt import HashGPTConfig
from models.modeling_hash_gpt import HashGPTForCausalLM
from models.parameter_count import count_parameters
from tests.models.routers import ROUTERS

SMALL = {
    "vocab_size": 11,
    "max_position_embeddings": 5,
    "hidden_size": 4,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_experts": 3,
}
SHAPES = {
    "dense": {},
    "one sparse layer": {"sparse_layers": [1]},
    "all layers sparse": {"sparse_layers": [0, 1, 2]},
    "sinusoidal positions": {"sparse_layers": [1], "position_embedding": "sinusoidal"},
    "feed-forwards of their own width": {"sparse_layers": [1], "intermediate_size": 7},
    "an output matrix of its own": {"sparse_layers": [1], "tie_word_embeddings": False},
    "an inserted layer": {"sparse_layers": [1], "placement": "insert"},
    "inserted stacks": {"sparse_layers": [0, 2], "placement": "insert", "num_sublayers": 3, "intermediate_size": 7},
}
SHAPES |= {name: {"sparse_layers": [0, 2], **fields} for name, fields in ROUTERS.items()}
PAPER_B2 = {
    "vocab_size": 51200,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
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
    assert count_parameters(HashGPTConfig(**SMALL, intermediate_size=7)).per_expert == 28 + 7 + 28 + 4


def test_a_token_uses_one_expert_of_each_sparse_layer():
    count = count_parameters(HashGPTConfig(**SMALL, sparse_layers=[0, 2]))
    assert count.active == count.shared + 2 * count.per_expert
    assert count.total == count.shared + 2 * 3 * count.per_expert


@pytest.mark.parametrize(
    "fields, experts",
    [
        ({"router": "switch"}, 1),
        ({"router": "gshard"}, 2),
        ({"router": "expert_choice"}, 2),
        ({"router": "expert_choice", "capacity_factor": 0.5}, 0.5),
    ],
)
def test_a_token_uses_as_many_experts_as_its_router_sends_it_to(fields, experts):
    count = count_parameters(HashGPTConfig(**SMALL, sparse_layers=[0, 2], **fields))
    assert count.active == count.shared + 2 * experts * count.per_expert


# 3 experts, d = 4, 11 words
@pytest.mark.parametrize(
    "router, size", [("switch", 15), ("token_switch", 15 + 44), ("gshard", 12), ("base", 12), ("expert_choice", 12)]
)
def test_a_learned_router_has_a_vector_per_expert_and_some_have_more(router, size):
    hashed, learned = (count_parameters(HashGPTConfig(**SMALL, sparse_layers=[1], router=r)) for r in ("hash", router))
    assert learned.total - hashed.total == learned.shared - hashed.shared == size


def test_an_inserted_expert_is_a_stack_of_feed_forwards_with_norms():
    inserted = HashGPTConfig(**SMALL, intermediate_size=7, sparse_layers=[1], placement="insert", num_sublayers=3)
    assert count_parameters(inserted).per_expert == 3 * (28 + 7 + 28 + 4 + 2 * 4)


def test_inserted_layers_leave_the_dense_model_as_it_is():
    dense = HashGPTConfig(**SMALL)
    inserted = HashGPTConfig(**SMALL, sparse_layers=[0, 2], placement="insert")
    assert count_parameters(inserted).shared == count_parameters(dense).total


def test_a_sparse_model_has_as_many_active_parameters_as_the_dense_one():
    dense, sparse = HashGPTConfig(**SMALL), HashGPTConfig(**SMALL, sparse_layers=[1])
    assert count_parameters(sparse).active == count_parameters(dense).total


def test_the_shared_parameters_of_the_base_comparison_are_the_papers():
    assert count_parameters(HashGPTConfig(**PAPER_B2)).shared == 1_313_460_224  # appendix B.2


@pytest.mark.parametrize(
    "shape, per_expert",
    [
        ({"sparse_layers": [12], "num_sublayers": 3}, 100_706_304),
        ({"sparse_layers": [6, 12, 18], "num_sublayers": 1}, 100_706_304 // 3),
    ],
    ids=["1 layer of 3 sublayers", "3 layers of 1 sublayer"],
)
def test_the_base_comparison_has_the_papers_parameters_in_both_forms(shape, per_expert):
    # Appendix B.2: an expert of three sublayers is 3 * (a feed-forward and a norm of 2 * 2048).
    count = count_parameters(HashGPTConfig(**PAPER_B2, num_experts=32, placement="insert", **shape))
    assert (count.shared, count.per_expert, count.total) == (1_313_460_224, per_expert, 4_536_061_952)


def test_a_hash_layer_of_64_experts_adds_63_feed_forwards():
    # Table B.1: 751,159,296 parameters of Hash 1x64 against 222,354,432 of the dense baseline.
    dense = HashGPTConfig(hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_experts=64)
    sparse = HashGPTConfig(
        hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_experts=64, sparse_layers=[7]
    )
    assert count_parameters(sparse).total - count_parameters(dense).total == 751_159_296 - 222_354_432


def test_switch_has_the_papers_parameters_beyond_those_of_the_hash_layer():
    # Table B.1: 751,224,896 against 751,159,296, the router's 64 * 1024 + 64.
    fields = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_experts": 64,
        "sparse_layers": [7],
    }
    hashed, switch = (count_parameters(HashGPTConfig(**fields, router=router)) for router in ("hash", "switch"))
    assert switch.total - hashed.total == 751_224_896 - 751_159_296
