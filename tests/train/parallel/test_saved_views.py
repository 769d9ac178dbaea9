"""Experts whose weights are freed behind the forward pass, and come back elsewhere, have the gradients of others."""

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

from models.dispatch import make_plan
from models.experts import Experts, Segment, StackedExperts
from models.routes import Routes
from tests.models.tiny import tiny_config
from train.parallel.packed_experts import PackedExperts
from train.parallel.recomputation import keep_received
from train.parallel.saved_views import remember_views

INSERTED = {"placement": "insert", "num_sublayers": 2}
KINDS = {
    "packed": lambda: PackedExperts(Experts(tiny_config()), range(3)),
    "packed stacks": lambda: PackedExperts(StackedExperts(tiny_config(**INSERTED)), range(3)),
    "stacks": lambda: StackedExperts(tiny_config(**INSERTED)),
    "whole": lambda: Experts(tiny_config()),
}

HALF = Segment("up", 1, 2)  # of MultiHash with two hashes


def gather(module: torch.nn.Module, values: list[torch.Tensor], *, first: int = 0) -> StorageWeakRef:
    """Put the values into one new storage, from element `first` on, as ZeRO 3 does; does not keep it alive."""
    flat = torch.cat([torch.zeros(first), *(value.flatten() for value in values)])
    parts = flat[first:].split([value.numel() for value in values])
    for parameter, part, value in zip(module.parameters(), parts, values, strict=True):
        parameter.data = part.view(value.shape)
    return StorageWeakRef(flat.untyped_storage())


def free(module: torch.nn.Module) -> None:
    for parameter in module.parameters():
        parameter.data = torch.empty(0)


def gradients(module: torch.nn.Module, values: list[torch.Tensor], segment, *, frees: bool) -> list[torch.Tensor]:
    torch.manual_seed(1)
    hidden_TD = torch.randn(5, 8, requires_grad=True)
    gathered = gather(module, values)
    plan = make_plan(Routes(torch.tensor([2, 0, 2, 2, 0])), 3)
    outputs = module(hidden_TD, plan, segment).square().sum()
    if frees:
        free(module)
        assert gathered.expired()
        gather(module, values, first=7)
    outputs.backward()
    return [hidden_TD.grad, *(parameter.grad for parameter in module.parameters())]


@pytest.mark.parametrize(
    "kind, segment", [*((kind, None) for kind in KINDS), *((k, HALF) for k in ("packed", "whole"))]
)
def test_freed_weights_are_found_again(kind, segment):
    generator = torch.Generator().manual_seed(0)
    plain, remembering = KINDS[kind](), KINDS[kind]()
    values = [torch.randn(parameter.shape, generator=generator) for parameter in plain.parameters()]
    remember_views(remembering)
    expected = gradients(plain, values, segment, frees=False)
    found = gradients(remembering, values, segment, frees=True)
    for a, b in zip(found, expected, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


class CheckpointedBlock(torch.nn.Module):
    """Experts behind another operation. num_alive: of their inputs, behind the forward pass."""

    def __init__(self, experts: torch.nn.Module):
        super().__init__()
        self.experts, self.inputs, self.num_alive = experts, [], 0

    def forward(self, *arguments):
        outputs = checkpoint(self._compute, *arguments, use_reentrant=False, context_fn=keep_received)
        self.num_alive = sum(not storage.expired() for storage in self.inputs)
        return outputs

    def _compute(self, hidden_TD, plan, segment):
        inputs_TD = hidden_TD * 2
        self.inputs.append(StorageWeakRef(inputs_TD.untyped_storage()))
        return self.experts(inputs_TD, plan, segment).sin()


@pytest.mark.parametrize("kind", ["packed", "whole"])
def test_a_checkpointed_block_recomputes_what_its_experts_need(kind):
    plain, remembering = CheckpointedBlock(KINDS[kind]()), CheckpointedBlock(KINDS[kind]())
    values = [torch.randn(parameter.shape) for parameter in plain.parameters()]
    remember_views(remembering.experts)
    expected = gradients(plain, values, None, frees=False)
    found = gradients(remembering, values, None, frees=True)
    assert len(remembering.inputs) == 2 and remembering.num_alive == 0
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
