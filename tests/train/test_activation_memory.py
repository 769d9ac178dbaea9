"""The formula of a forward pass's memory against the tensors that it saves."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from models.modeling_hash_gpt import HashGPTForCausalLM
from tests.models.hashes import NUM_EXPERTS, make_tables
from tests.models.tiny import VOCAB, tiny_config
from tests.train.parallel.threads import become, make_groups
from train.activation_memory import activation_bytes
from train.parallel import all_to_all
from train.parallel.expert_parallel import ExpertParallelExperts
from train.parallel.recomputation import keep_received

ACTIVATIONS = ["gelu_new", "gelu_pytorch_tanh", "relu"]
INSERTED = {"placement": "insert", "num_sublayers": 3}
NETWORKS = {
    **{f"dense, {name}": {"sparse_layers": [], "activation_function": name} for name in ACTIVATIONS},
    **{f"hash, {name}": {"activation_function": name} for name in ACTIVATIONS},
    "hash in every block, wide": {"sparse_layers": [0, 1, 2], "intermediate_size": 400},
    "inserted": {**INSERTED, "activation_function": "gelu_pytorch_tanh"},
    "MultiHash 2": {"num_hashes": 2, "activation_function": "gelu_pytorch_tanh"},
}


def saved_bytes(model: HashGPTForCausalLM, ids: torch.Tensor, **outputs) -> int:
    """The bytes of all tensors that a forward pass saves, without parameters, plans and tables."""
    plans = model.transformer.plan(ids)
    known = [*model.parameters(), *model.buffers()]
    storages = {tensor.untyped_storage().data_ptr() for tensor in known}
    saved = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in storages and tensor.is_floating_point() and tensor.shape != (VOCAB, 64):
            saved[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(save, lambda tensor: tensor):
        loss = model(ids, targets=ids, plans=plans, use_cache=False).loss
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in saved.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_forward_pass_keeps_what_the_formula_says(name, dtype):
    config = tiny_config(hidden_size=64, num_experts=NUM_EXPERTS, num_attention_heads=2, **NETWORKS[name])
    config._attn_implementation = "sdpa"
    model = HashGPTForCausalLM(config).to(dtype).train()
    if config.sparse_layers:
        model.set_route_tables([make_tables(config, index) for index in range(len(config.sparse_layers))])
    ids = torch.randint(0, VOCAB, (4, 32))
    expected = activation_bytes(
        config, num_tokens=ids.numel(), element_bytes=dtype.itemsize, recomputes=False, ep_size=1
    )
    assert saved_bytes(model, ids) == pytest.approx(expected, rel=0.05)


def test_recomputation_keeps_the_inputs_of_blocks():
    config = tiny_config(hidden_size=64, num_hidden_layers=5, sparse_layers=[])
    model = HashGPTForCausalLM(config).train()
    model.activation_checkpointing_enable({"use_reentrant": False})
    ids = torch.randint(0, VOCAB, (4, 32))
    whole = activation_bytes(config, num_tokens=ids.numel(), element_bytes=4, recomputes=True, ep_size=1)
    one_block = 4 * ids.numel() * (8 * 64 + 5 * 256)  # made in the backward pass
    assert saved_bytes(model, ids) == pytest.approx(whole - one_block, rel=0.05)


@pytest.mark.parametrize("name", ["hash, relu", "inserted", "MultiHash 2"])
def test_recomputation_also_keeps_what_sparse_layers_received(name, monkeypatch):
    config = tiny_config(hidden_size=64, num_experts=NUM_EXPERTS, sparse_layers=[0, 2], **NETWORKS[name])
    model = HashGPTForCausalLM(config).train()
    model.set_route_tables([make_tables(config, index) for index in range(2)])
    [group] = make_groups(1, monkeypatch)
    become(group, monkeypatch)
    for layer in model.transformer.sparse_ffns.values():
        layer.experts = ExpertParallelExperts(layer.experts, ep_size=1)  # every token stays, and is kept none the less
    received = see_received(monkeypatch)
    model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": keep_received})
    ids = torch.randint(0, VOCAB, (4, 32))
    loss = model(ids, targets=ids, use_cache=False).loss
    kept = sum(size for storage, size in received if not storage.expired())
    options = {"num_tokens": ids.numel(), "element_bytes": 4, "recomputes": True}
    assert loss.requires_grad
    assert kept == activation_bytes(config, **options, ep_size=2) - activation_bytes(config, **options, ep_size=1) > 0


def see_received(monkeypatch) -> list[tuple[StorageWeakRef, int]]:
    """The storages that all-to-alls of tokens fill until the test ends, and their bytes."""
    received, exchange = [], all_to_all._all_to_all

    def receive(*arguments):
        arrived = exchange(*arguments)
        received.append((StorageWeakRef(arrived.untyped_storage()), arrived.untyped_storage().nbytes()))
        return arrived

    monkeypatch.setattr(all_to_all, "_all_to_all", receive)
    return received
