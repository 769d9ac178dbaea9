"""The shuffle of BASE layers: tokens move to random ranks and return, and so do their gradients."""

import pytest
import torch

from tests.distributed.parallel.token_shuffle_checks import TOKENS, check_on_ranks
from tests.distributed.ranks import run_ranks

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def found():
    """The results of all checks on each of two ranks."""
    return run_ranks(check_on_ranks, 2)


def test_tokens_move_to_other_ranks_and_return(found):
    results = [rank["shuffled_tokens"] for rank in found]
    seen, tokens = (torch.cat([rank[what] for rank in results]).flatten() for what in ("seen", "tokens"))
    assert torch.equal(seen.sort().values, tokens) and not torch.equal(seen, tokens)
    for number, rank in enumerate(results):
        foreign = (rank["seen"] >= 100).sum() if number == 0 else (rank["seen"] < 100).sum()
        assert foreign == TOKENS // 2
        assert torch.equal(rank["outputs"], 2 * rank["tokens"])
        assert torch.equal(rank["grad"], 2 * torch.arange(TOKENS).float().unsqueeze(1))


def test_a_base_layer_routes_tokens_of_all_ranks_in_training_and_its_own_in_evaluation(found):
    for number, rank in enumerate(found):
        routed = rank["tokens_that_are_routed"]
        assert (routed["training"] != number).sum() == 8 and (routed["evaluation"] == number).all()


def test_recomputed_blocks_repeat_their_shuffle(found):
    assert [rank["checkpointing"] for rank in found] == [True, True]


def test_only_base_layers_with_experts_on_several_ranks_shuffle(found):
    shuffles = found[0]["shuffled_layers"]
    assert shuffles == {"switch": [False] * 2, "base": [True] * 2, "base in place": [True] * 2, "alone": [False] * 2}


def test_the_experts_of_shuffled_tokens_are_balanced_on_every_rank(found):
    assert [rank["loads_while_training"] for rank in found] == [[4, 4, 4, 4]] * 2
