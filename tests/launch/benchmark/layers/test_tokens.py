"""Token ids from Zipf's law, and the table that balances them."""

import numpy as np
import torch

from launch.benchmark.layers.tokens import TokenSource


def test_zipf_ids_are_the_same_at_every_call_and_differ_by_rank():
    source = TokenSource(None, vocab_size=1000, seed=3)
    assert torch.equal(source.draw(4, 16, rank=0), source.draw(4, 16, rank=0))
    assert not torch.equal(source.draw(4, 16, rank=0), source.draw(4, 16, rank=1))


def test_the_table_in_memory_balances_experts_and_ranks():
    source = TokenSource(None, vocab_size=1000, seed=0)
    table = source.table(None, num_experts=4, ep_size=2)
    load_E = np.bincount(table[:, 0], weights=source.counts())
    assert load_E.max() / load_E.mean() < 1.001
