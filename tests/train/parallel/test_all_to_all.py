"""The splits of tokens between ranks, computed without any rank."""

import torch

from tests.train.parallel.threads import make_groups, run_on_threads
from train.parallel.all_to_all import AllToAll, make_splits

# Rank 1 of 3 ranks with 2 experts each: [rank, expert of that rank].
SEND = torch.tensor([[1, 0], [0, 2], [0, 1]])
RECEIVE = torch.tensor([[1, 1], [0, 2], [1, 0]])


def test_tokens_of_this_ranks_experts_stay():
    splits = make_splits(SEND, RECEIVE, rank=1)
    assert splits.num_kept == 2
    assert (splits.input_splits, splits.output_splits) == ([1, 0, 1], [2, 0, 1])


def test_the_experts_take_the_tokens_that_stayed_before_those_that_arrived():
    arrivals = make_splits(SEND, RECEIVE, rank=1).arrivals
    # Stayed: 0 and 1 for expert 1. From rank 0: 2 for expert 0, 3 for expert 1. From rank 2: 4 for expert 0.
    assert arrivals.tokens_per_expert == [2, 3]
    assert arrivals.order_N.tolist() == [2, 4, 0, 1, 3]


def test_the_way_back_swaps_what_is_sent_and_received():
    back = make_splits(SEND, RECEIVE, rank=1).reversed
    assert (back.num_kept, back.input_splits, back.output_splits) == (2, [2, 0, 1], [1, 0, 1])


# By rank: the tokens that it sends to each expert of each rank, [rank, expert of that rank].
SENDS = [torch.tensor([[1, 0], [1, 1]]), torch.tensor([[2, 0], [0, 1]])]


def exchange(rank: int, group) -> tuple[list, list]:
    """The tokens of expert order that arrive, and the gradient of a rank's own; a token is 10 * rank + its number."""
    receive_Pe = torch.stack([send_Pe[rank] for send_Pe in SENDS])
    splits = make_splits(SENDS[rank], receive_Pe, rank=rank)
    tokens_TD = (10.0 * rank + torch.arange(3)).unsqueeze(1).requires_grad_()
    arrived = AllToAll.apply(tokens_TD, splits, group)
    (arrived * (100 * (rank + 1))).sum().backward()
    return arrived.flatten().tolist(), tokens_TD.grad.flatten().tolist()


def test_tokens_that_stay_come_before_those_of_other_ranks_and_gradients_return(monkeypatch):
    groups = make_groups(2, monkeypatch)
    # Rank 0 keeps its token 0 and sends 1 and 2; rank 1 keeps 10 and sends 11 and 12.
    (arrived_0, grad_0), (arrived_1, grad_1) = run_on_threads(lambda rank: exchange(rank, groups[rank]), groups)
    assert (arrived_0, arrived_1) == ([0, 11, 12], [10, 1, 2])
    assert (grad_0, grad_1) == ([100, 200, 200], [200, 100, 100])


def test_the_plan_of_arrivals_counts_what_every_rank_sends():
    for rank, counts in enumerate([[3, 0], [1, 2]]):
        receive_Pe = torch.stack([send_Pe[rank] for send_Pe in SENDS])
        assert make_splits(SENDS[rank], receive_Pe, rank=rank).arrivals.tokens_per_expert == counts
