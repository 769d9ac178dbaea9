"""Experts that are split over two ranks, which are threads, compute what all of them do on one device."""

import deepspeed.comm as dist
import pytest
import torch
from deepspeed.checkpoint import constants
from deepspeed.utils import groups as deepspeed_groups

from models.experts import Experts, Segment
from models.modeling_hash_gpt import HashGPTForCausalLM
from models.routes import Routes
from tests.models.tiny import tiny_config
from tests.train.parallel.threads import become, make_groups, run_on_threads
from train.parallel.expert_parallel import (
    ExpertParallelExperts,
    assert_experts_are_tagged,
    parallelize_experts,
    stacked_expert_tensors,
    tag_experts,
)
from train.parallel.recomputation import keep_received

EXPERTS_OF_TOKENS = [torch.tensor([3, 0, 2, 0, 3]), torch.tensor([0, 3, 3, 2, 0])]  # by rank; expert 1 is idle


@pytest.fixture
def whole() -> Experts:
    """Four experts."""
    torch.manual_seed(0)
    experts = Experts(tiny_config(num_experts=4)).double()
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    return experts


@pytest.fixture
def groups(monkeypatch) -> list:
    """The expert-parallel group of each of two ranks."""
    return make_groups(2, monkeypatch)


@pytest.fixture
def shares(whole, groups, monkeypatch) -> list[ExpertParallelExperts]:
    """The share of each rank."""
    return [_share(whole, group, monkeypatch) for group in groups]


def _share(whole: Experts, group, monkeypatch) -> ExpertParallelExperts:
    become(group, monkeypatch)
    share = ExpertParallelExperts(whole, ep_size=2)
    for name, tensor in stacked_expert_tensors(share).items():
        tensor.data.copy_(getattr(whole, name)[share.expert_ids.start : share.expert_ids.stop])
    return share


@pytest.mark.parametrize("segment", [None, Segment("up", 1, 2)])
def test_outputs_and_gradients_are_those_of_all_experts_on_one_device(segment, whole, groups, shares):
    hidden = [torch.randn(5, 8, dtype=torch.float64, requires_grad=True) for _ in groups]

    def run(rank: int) -> torch.Tensor:
        outputs = shares[rank](hidden[rank], shares[rank].plan(Routes(EXPERTS_OF_TOKENS[rank])), segment)
        outputs.square().sum().backward()
        return outputs.detach()

    found, grads = run_on_threads(run, groups), [tokens.grad.clone() for tokens in hidden]
    for rank, tokens in enumerate(hidden):
        tokens.grad = None
        outputs = whole(tokens, whole.plan(Routes(EXPERTS_OF_TOKENS[rank])), segment)
        outputs.square().sum().backward()
        torch.testing.assert_close(found[rank], outputs.detach())
        torch.testing.assert_close(grads[rank], tokens.grad)
    torch.testing.assert_close(torch.cat([share.experts.w1.grad for share in shares]), whole.up_proj.grad)


def test_a_plan_tells_how_many_tokens_travel(groups, shares):
    plans = run_on_threads(lambda rank: shares[rank].plan(Routes(EXPERTS_OF_TOKENS[rank])), groups)
    assert [plan.tokens_per_expert for plan in plans] == [[2, 0, 1, 2], [2, 0, 1, 2]]
    assert [plan.splits.num_kept for plan in plans] == [2, 3]
    assert [plan.splits.input_splits for plan in plans] == [[0, 3], [2, 0]]
    assert [plan.splits.output_splits for plan in plans] == [[0, 2], [3, 0]]
    assert [plan.splits.arrivals.tokens_per_expert for plan in plans] == [[4, 0], [2, 4]]


def test_a_recomputed_plan_exchanges_no_counts_again(shares, monkeypatch):
    sent = []
    monkeypatch.setattr(dist, "all_to_all_single", lambda output, tensor, group: sent.append(output.copy_(tensor)))
    forward, recomputation = keep_received()
    with forward:
        plan = shares[0].plan(Routes(EXPERTS_OF_TOKENS[0]))
    with recomputation:
        again = shares[0].plan(Routes(EXPERTS_OF_TOKENS[0]))
    assert len(sent) == 1 and again.splits.output_splits == plan.splits.output_splits == [0, 3]


def test_each_rank_holds_the_next_experts(shares):
    assert [share.expert_ids for share in shares] == [range(0, 2), range(2, 4)]
    assert [share.num_local_experts for share in shares] == [2, 2]


def test_every_parameter_is_tagged_as_an_expert_with_its_place(shares):
    for rank, share in enumerate(shares):
        for parameter in share.experts.parameters():
            assert parameter.allreduce is False and parameter.group_name == "ep_size_2"
            assert parameter.ds_zero_placement_family == "autoep_expert"
            assert parameter.ds_zero_partition_group_name == "ep_size_2"
            place = getattr(parameter, constants.DS_AUTOEP_UC_META)
            assert place[constants.AUTOEP_PARAM_LOGICAL_SHAPE] == [4, *parameter.shape[1:]]
            assert place[constants.AUTOEP_PARAM_EP_RANK] == rank
            assert place[constants.AUTOEP_PARAM_LOCAL_EXPERTS] == [2 * rank, 2 * rank + 1]


def test_deepspeed_is_told_to_sum_weighted_outputs_and_no_backend(shares):
    assert (shares[0].combine_impl, shares[0].comm_backend) == ("weighted_sum", "comm")


def test_weights_are_drawn_as_those_of_all_experts(whole, shares):
    weights = {name: torch.ones_like(parameter) for name, parameter in whole.named_parameters()}
    shares[0].initialize(weights)
    assert not weights["up_proj_bias"].any() and weights["up_proj"].std() > 0


def test_stacked_tensors_have_the_names_of_all_experts(whole, shares):
    names = ["up_proj", "up_proj_bias", "down_proj", "down_proj_bias"]
    assert list(stacked_expert_tensors(whole)) == list(stacked_expert_tensors(shares[0])) == names


@pytest.fixture
def model(groups, monkeypatch) -> HashGPTForCausalLM:
    """A model whose experts are split over two ranks; `created` holds the sizes of DeepSpeed's groups."""
    model = HashGPTForCausalLM(tiny_config(num_experts=4, sparse_layers=[0, 2]))
    become(groups[1], monkeypatch)
    model.created = []
    monkeypatch.setattr(deepspeed_groups, "_create_expert_and_data_parallel", model.created.append)
    parallelize_experts(model, ep_size=2)
    return model


def test_the_experts_of_every_sparse_layer_are_replaced(model):
    assert model.created == [2]
    assert [type(model.transformer.sparse_ffns[layer].experts) for layer in (0, 2)] == [ExpertParallelExperts] * 2


def test_with_one_rank_per_group_a_model_stays_as_it_is():
    model = HashGPTForCausalLM(tiny_config())
    parallelize_experts(model, ep_size=1)
    assert type(model.transformer.sparse_ffns[1].experts) is Experts


def test_experts_with_buffers_are_refused(model, monkeypatch):
    original = ExpertParallelExperts.tag_parameters

    def tag(experts):
        original(experts)
        experts.register_buffer("seen", torch.zeros(1))

    monkeypatch.setattr(ExpertParallelExperts, "tag_parameters", tag)
    other = HashGPTForCausalLM(tiny_config(num_experts=4))
    with pytest.raises(RuntimeError, match=r"transformer.h.1.mlp.experts holds buffers \['seen'\]"):
        parallelize_experts(other, ep_size=2)


@pytest.mark.parametrize("change", [{"allreduce": True}, {"group_name": "ep_size_4"}])
def test_experts_that_lost_a_tag_are_refused_until_they_are_tagged_again(change, model):
    assert_experts_are_tagged(model)
    parameter = model.transformer.sparse_ffns[2].experts.experts.w2
    for name, value in change.items():
        setattr(parameter, name, value)
    with pytest.raises(RuntimeError, match="h.2.mlp.experts.experts.w2 lost its expert-parallel tags"):
        assert_experts_are_tagged(model)
    tag_experts(model)
    assert_experts_are_tagged(model)


def test_new_parameters_without_tags_are_refused(model):
    experts = model.transformer.sparse_ffns[0].experts.experts
    experts.w1 = torch.nn.Parameter(experts.w1.data)
    with pytest.raises(RuntimeError, match="h.0.mlp.experts.experts.w1 lost"):
        assert_experts_are_tagged(model)
