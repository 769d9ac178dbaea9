"""What ranks send each other, without any rank."""

import torch

from train.parallel.expert_parallel import make_exchange

# Rank 1 of 3 ranks with 2 experts each: [rank, expert of that rank].
SEND = torch.tensor([[1, 0], [0, 2], [0, 1]])
RECEIVE = torch.tensor([[1, 1], [0, 2], [1, 0]])


def test_rows_of_this_ranks_experts_stay():
    exchange = make_exchange(SEND, RECEIVE, rank=1)
    assert exchange.num_kept == 2
    assert (exchange.input_splits, exchange.output_splits) == ([1, 0, 1], [2, 0, 1])


def test_the_experts_take_the_rows_that_stayed_before_those_that_arrived():
    local = make_exchange(SEND, RECEIVE, rank=1).local
    # Stayed: rows 0, 1 of expert 1. From rank 0: row 2 of expert 0, row 3 of expert 1. From rank 2: row 4 of expert 0.
    assert local.tokens_per_expert == [2, 3]
    assert local.order_N.tolist() == [2, 4, 0, 1, 3]


def test_the_way_back_swaps_what_is_sent_and_received():
    back = make_exchange(SEND, RECEIVE, rank=1).reversed
    assert (back.num_kept, back.input_splits, back.output_splits) == (2, [2, 0, 1], [1, 0, 1])
