"""The shuffle of BASE layers, on ranks that are threads."""

import pytest
import torch

from models.modeling_hash_gpt import HashGPTForCausalLM
from tests.models.routers import ROUTERS
from tests.models.tiny import tiny_config
from tests.train.parallel.threads import become, make_groups, run_on_threads
from train.parallel import token_shuffle
from train.parallel.expert_parallel import ExpertParallelExperts
from train.parallel.token_shuffle import TokenShuffle, even_splits, shuffle_base_tokens


@pytest.mark.parametrize("num_tokens, num_ranks", [(12, 3), (13, 3), (2, 3), (5, 1)])
def test_every_rank_has_as_many_tokens_as_before(num_tokens, num_ranks):
    splits = [even_splits(num_tokens, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    for rank, own in enumerate(splits):
        assert own.num_kept + sum(own.output_splits) == num_tokens
        assert own.input_splits[rank] == 0
        assert own.output_splits == [other.input_splits[rank] for other in splits]


def make_model(router: str, group, monkeypatch) -> HashGPTForCausalLM:
    """One sparse layer, with the experts that its rank holds; with all of them if the group is None."""
    model = HashGPTForCausalLM(tiny_config(num_experts=4, **ROUTERS[router]))
    if group is not None:
        become(group, monkeypatch)
        layer = model.transformer.sparse_ffns[1]
        layer.experts = ExpertParallelExperts(layer.experts, ep_size=2)
    shuffle_base_tokens(model)
    return model


def test_every_other_rank_gets_the_same_share_and_the_rest_stays():
    splits = even_splits(13, rank=1, num_ranks=3)
    assert (splits.num_kept, splits.input_splits, splits.output_splits) == (5, [4, 0, 4], [4, 0, 4])
    assert splits.arrivals is None


def test_tokens_move_to_the_other_rank_and_return_with_their_gradients(monkeypatch):
    groups = make_groups(2, monkeypatch)
    shuffles = [make_model("base", group, monkeypatch).transformer.sparse_ffns[1].shuffle for group in groups]
    monkeypatch.setattr(token_shuffle.torch, "randperm", lambda size, device: torch.tensor([1, 2, 3, 4, 0]))

    def shuffle(rank: int) -> list[list[float]]:
        tokens_TD = (10.0 * rank + torch.arange(5)).unsqueeze(1).requires_grad_()
        shuffled_TD, restore = shuffles[rank](tokens_TD)
        outputs_TD = restore(shuffled_TD * 2)
        (outputs_TD * torch.arange(5).unsqueeze(1)).sum().backward()
        return [values.flatten().tolist() for values in (shuffled_TD, outputs_TD, tokens_TD.grad)]

    # Three of the five tokens stay: an odd number cannot be halved.
    assert run_on_threads(shuffle, groups) == [
        [[1, 2, 3, 14, 10], [0, 2, 4, 6, 8], [0, 2, 4, 6, 8]],
        [[11, 12, 13, 4, 0], [20, 22, 24, 26, 28], [0, 2, 4, 6, 8]],
    ]


@pytest.mark.parametrize("router, shuffles", [("base", True), ("base in place", True), ("switch", False)])
def test_only_base_layers_shuffle(router, shuffles, monkeypatch):
    [group, _] = make_groups(2, monkeypatch)
    layer = make_model(router, group, monkeypatch).transformer.sparse_ffns[1]
    assert isinstance(layer.shuffle, TokenShuffle) == shuffles


def test_experts_on_one_device_are_not_shuffled(monkeypatch):
    assert make_model("base", None, monkeypatch).transformer.sparse_ffns[1].shuffle is None
