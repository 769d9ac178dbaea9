"""A forward and backward pass with plans made ahead waits for nothing on the device."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from launch.gpu_acceptance.measuring.waits import count_waits
from models.modeling_hash_gpt import HashGPTForCausalLM
from tests.models.hashes import HASHES, NUM_EXPERTS, make_tables
from tests.models.tiny import VOCAB, tiny_config, token_ids


def test_what_waits_is_counted():
    values = torch.arange(3)
    with count_waits() as waits:
        _ = values.sum().item(), bool(values.any()), values.tolist(), values[values > 1], values.nonzero()
        torch.arange(2).repeat_interleave(torch.tensor([1, 2]))
        torch.arange(2).repeat_interleave(torch.tensor([1, 2]), output_size=3)
    expected = {"_local_scalar_dense": 2, "tolist": 1, "index by a mask": 1, "nonzero": 1, "repeat_interleave": 1}
    assert waits == expected


def make_model(routing: str, attention: str) -> HashGPTForCausalLM:
    config = tiny_config(
        hidden_size=16, sparse_layers=[0, 2], num_experts=NUM_EXPERTS, num_buckets=11, **HASHES[routing]
    )
    config._attn_implementation = attention
    model = HashGPTForCausalLM(config).train()
    model.set_route_tables([make_tables(config, index) for index in range(2)])
    return model


def train(model: HashGPTForCausalLM, **known) -> None:
    """One pass, with plans that are made before waits are counted."""
    ids = token_ids()
    known |= {"next_ids": ids, "predicted_ids": ids}
    plans = model.transformer.plan(ids, **known)
    with count_waits() as waits:
        logits = model(ids, plans=plans, use_cache=False, **known).logits
        cross_entropy(logits.view(-1, VOCAB), ids.flatten()).backward()
    assert not waits


@pytest.mark.parametrize("routing", HASHES)
def test_a_pass_of_every_hash_waits_for_nothing(routing):
    train(make_model(routing, "sdpa"))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_documents_are_kept_apart_without_waiting(attention):
    train(make_model("token", attention), position_ids=torch.tensor([[0, 1, 2, 0, 0, 1, 2], [0, 1, 2, 3, 4, 5, 6]]))


def test_recomputed_blocks_wait_for_nothing():
    model = make_model("token", "sdpa")
    model.activation_checkpointing_enable({"use_reentrant": False})
    train(model)


def test_plain_causal_attention_gets_no_mask():
    model, masks = make_model("token", "sdpa"), []
    for block in model.transformer.h:
        block.attn.register_forward_pre_hook(
            lambda _, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
        )
    model(token_ids(), use_cache=False)
    assert masks == [None] * len(model.transformer.h)
