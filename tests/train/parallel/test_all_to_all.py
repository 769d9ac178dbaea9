"""The splits of tokens between ranks, computed without any rank."""

import torch

from train.parallel.all_to_all import make_splits

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
