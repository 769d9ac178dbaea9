"""A rank's packed experts hold a slice of the whole model's, and their offsets say which, without any rank."""

import pytest
import torch

from models.dispatch import make_plan
from models.experts import Experts, StackedExperts
from models.routes import Routes
from tests.models.tiny import tiny_config
from train.parallel.packed_experts import PackedExperts, parameter_offsets

INSERTED = {"placement": "insert", "num_sublayers": 2}


@pytest.fixture(params=[Experts, StackedExperts])
def whole(request) -> Experts:
    """Five experts whose elements are all different."""
    experts = request.param(tiny_config(num_experts=5, **(INSERTED if request.param is StackedExperts else {})))
    first = 0
    for parameter in experts.parameters():
        parameter.data = torch.arange(first, first + parameter.numel()).view(parameter.shape).float()
        first += parameter.numel()
    return experts


def pack(whole: Experts, expert_ids: range) -> PackedExperts:
    packed = PackedExperts(whole, expert_ids)
    for name, tensor in packed.weights().items():
        tensor.data.copy_(getattr(whole, name)[expert_ids.start : expert_ids.stop])
    return packed


def test_deepspeed_is_given_three_parameters_of_three_dimensions(whole):
    parameters = dict(PackedExperts(whole, range(2, 4)).named_parameters())
    assert list(parameters) == ["w1", "w2", "w3"]
    assert [(p.dim(), len(p)) for p in parameters.values()] == [(3, 2)] * 3


def test_offsets_locate_every_element_in_the_whole_model(whole):
    layer = torch.nn.ModuleDict({"experts": torch.nn.ModuleDict({"experts": pack(whole, range(2, 4))})})
    offsets = parameter_offsets(layer)
    for name, parameter in layer.named_parameters():
        end = 0
        for part in offsets[name]:
            assert part.begin == end  # in order and without gaps
            end += part.size
            original = getattr(whole, part.name.removeprefix("experts.")).flatten()
            assert torch.equal(
                parameter.flatten()[part.begin : end], original[part.offset : part.offset + part.size]
            )  # fmt: skip
        assert end == parameter.numel()


def test_parameters_outside_the_experts_lie_where_they_are():
    [part] = parameter_offsets(torch.nn.ModuleDict({"norm": torch.nn.LayerNorm(4, bias=False)}))["norm.weight"]
    assert (part.begin, part.size, part.name, part.offset) == (0, 4, "norm.weight", 0)


def test_packed_experts_compute_what_the_whole_does(whole):
    hidden_TD, expert_N = torch.randn(3, 8), torch.tensor([1, 0, 1])
    parts = pack(whole, range(2, 4))
    found = parts(hidden_TD, make_plan(Routes(expert_N), 2), None)
    torch.testing.assert_close(found, whole(hidden_TD, make_plan(Routes(expert_N + 2), 5)))


def test_weights_are_drawn_as_those_of_the_whole(whole):
    weights = {name: torch.full_like(parameter, 7.0) for name, parameter in whole.named_parameters()}
    PackedExperts(whole, range(2, 4)).initialize(weights)
    assert not weights["up_proj_bias"].any() and not (weights["up_proj"] == 7).any()
