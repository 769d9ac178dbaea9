"""Documents that are packed into one sequence, with positions that begin again at 0, know nothing of each other."""

import pytest
import torch

from models.hash_keys import previous_tokens
from models.modeling_hash_gpt import HashGPTForCausalLM
from tests.models.hashes import NUM_EXPERTS, make_tables
from tests.models.tiny import tiny_config, token_ids

LENGTHS = (4, 1, 6)  # of three documents, 11 tokens
KEYS = ["token", "bigram", "previous", "position"]


def make_model(attention: str, **fields) -> HashGPTForCausalLM:
    torch.manual_seed(0)
    config = tiny_config(
        num_hidden_layers=4,
        sparse_layers=[0, 1, 2, 3],
        num_experts=NUM_EXPERTS,
        num_buckets=11,
        **{"hash_keys": KEYS} | fields,
    )
    config._attn_implementation = attention
    model = HashGPTForCausalLM(config).eval()
    model.set_route_tables([make_tables(config, index) for index in range(4)])
    return model


def packed() -> tuple[torch.Tensor, torch.Tensor]:
    """Two rows of ids, the second without a border, and their positions."""
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    return token_ids(2, sum(LENGTHS)), torch.stack([positions, torch.arange(sum(LENGTHS))])


def logits_alone(model, ids: torch.Tensor) -> torch.Tensor:
    """Of each document as a text of its own."""
    documents = [model(document, use_cache=False).logits for document in ids[:1].split(LENGTHS, dim=1)]
    return torch.cat([torch.cat(documents, dim=1), model(ids[1:], use_cache=False).logits])


VARIANTS = [{}, {"split_sizes": [[2, 1, 3], [0, 0, 0], [0, 0, 0], [0, 0, 0]]}, {"rotation_period": 4}]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("fields", VARIANTS, ids=["plain", "split tokens", "rotation"])
def test_a_packed_document_has_the_logits_that_it_has_alone(attention, fields):
    model, (ids, positions) = make_model(attention, **fields), packed()
    found = model(ids, position_ids=positions, use_cache=False).logits
    torch.testing.assert_close(found, logits_alone(model, ids))
    assert not torch.allclose(found[:1], model(ids[:1], use_cache=False).logits)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_packed_document_has_the_gradients_that_it_has_alone(attention, checkpointing):
    model, (ids, positions) = make_model(attention).double().train(), packed()  # dropout is 0
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    weights, gradients = list(model.parameters()), []
    for logits in (model(ids, position_ids=positions, use_cache=False).logits, logits_alone(model, ids)):
        gradients.append(torch.autograd.grad(logits.square().sum(), weights))
    torch.testing.assert_close(*gradients)


def test_plans_made_ahead_are_those_of_the_forward_pass():
    model, (ids, positions) = make_model("sdpa"), packed()
    plans = model.transformer.plan(ids, position_ids=positions)
    found = model(ids, position_ids=positions, plans=plans, use_cache=False).logits
    assert torch.equal(found, model(ids, position_ids=positions, use_cache=False).logits)


def test_packed_documents_are_kept_apart_without_asking_for_no_cache():
    model, (ids, positions) = make_model("sdpa"), packed()
    found = model(ids, position_ids=positions)
    torch.testing.assert_close(found.logits, logits_alone(model, ids))
    assert found.past_key_values is None
    assert model(ids, position_ids=positions[1:]).past_key_values is not None  # a single document


def test_the_first_token_of_a_document_has_no_previous_one():
    ids, positions = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[3, 4, 0, 1]])
    assert previous_tokens(ids, None, positions, none=23).tolist() == [[23, 5, 23, 7]]
