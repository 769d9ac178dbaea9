"""The routing values of the log are means over tokens, layers, micro-batches and ranks."""

from types import SimpleNamespace

import pytest
import torch

from models.routes import Routes, Routing, RoutingRecord
from train.config.run_config import RunConfig
from train.metrics import routing_stats
from train.metrics.routing_stats import RoutingStats

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_ranks_alike(monkeypatch):
    ranks = SimpleNamespace(
        get_world_size=lambda: 2, get_world_group=lambda: "world", all_reduce=lambda tensor, *, group: tensor.mul_(2)
    )
    monkeypatch.setattr(routing_stats, "dist", ranks)


def record(*, dropped: int, entropy: float, loss: float | None) -> RoutingRecord:
    """The record of a layer with 8 tokens."""
    loss = None if loss is None else torch.tensor(loss, requires_grad=True)
    routing = Routing(Routes(torch.zeros(8 - dropped)), loss, torch.tensor(dropped), torch.tensor(entropy))
    return RoutingRecord(8, [], routing)


def stats(router: str, layers=(1, 3)) -> RoutingStats:
    table = ["table"] if router == "hash" else []
    return RoutingStats(RunConfig("shards", sparse_layers=list(layers), router=router, route_table=table))


def test_dropped_and_entropy_are_means_of_layers_and_auxiliary_losses_add_up():
    found = stats("switch")
    found.add({1: record(dropped=2, entropy=1.0, loss=0.5), 3: record(dropped=0, entropy=0.5, loss=0.25)})
    found.add({1: record(dropped=2, entropy=1.0, loss=0.5), 3: record(dropped=4, entropy=0.5, loss=0.75)})
    assert found.take(CPU) == {"dropped_share": 8 / 32, "routing_entropy": 0.75, "auxiliary_loss": 1.0}


def test_each_line_of_the_log_starts_at_zero():
    found = stats("base", layers=[1])
    found.add({1: record(dropped=8, entropy=1.0, loss=None)})
    found.take(CPU)
    found.add({1: record(dropped=0, entropy=0.25, loss=None)})
    assert found.take(CPU) == {"dropped_share": 0.0, "routing_entropy": 0.25, "auxiliary_loss": 0.0}


def test_a_skipped_step_is_not_counted():
    found = stats("switch", layers=[1])
    found.add({1: record(dropped=4, entropy=1.0, loss=0.5)})
    found.add({1: record(dropped=0, entropy=float("nan"), loss=float("nan"))})
    found.discard(1)
    assert found.take(CPU) == {"dropped_share": 0.5, "routing_entropy": 1.0, "auxiliary_loss": 0.5}


def test_a_hash_drops_no_tokens_and_a_dense_model_has_none_to_drop():
    none = {"routing_entropy": None, "auxiliary_loss": None}
    assert stats("hash").take(CPU) == {"dropped_share": 0.0, **none}
    assert stats("hash", layers=[]).take(CPU) == {"dropped_share": None, **none}
