"""The fluctuation is the share of tokens whose experts change between validations, 0 for a hash."""

from types import SimpleNamespace

import pytest
import torch

from models.routes import Routes, Routing, RoutingRecord
from train.config.run_config import RunConfig
from train.metrics import routing_probe
from train.metrics.routing_probe import RoutingProbe

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_rank(monkeypatch):
    alone = SimpleNamespace(get_world_group=lambda: "world", all_reduce=lambda tensor, *, group: None)
    monkeypatch.setattr(routing_probe, "dist", alone)


def routed(expert_N: list[int], token_N: list[int] | None = None) -> dict[int, RoutingRecord]:
    """The routing of 4 tokens in block 1."""
    routes = Routes(torch.tensor(expert_N), None if token_N is None else torch.tensor(token_N))
    return {1: RoutingRecord(4, [], Routing(routes, None, None, None))}


def probe(router: str, layers=(1,)) -> RoutingProbe:
    table = ["table"] if router == "hash" else []
    return RoutingProbe(
        RunConfig("shards", sparse_layers=list(layers), router=router, num_experts=3, route_table=table)
    )


def fluctuations(*validations) -> list[float | None]:
    found = probe("gshard")
    results = []
    for records in validations:
        found.see(records)
        results.append(found.fluctuation(CPU))
    return results


def test_the_share_of_tokens_that_changed_since_the_last_validation():
    assert fluctuations(routed([0, 1, 2, 2]), routed([0, 1, 1, 0]), routed([0, 1, 1, 0])) == [None, 0.5, 0.0]


def test_a_token_with_two_experts_changed_if_either_did_but_not_if_they_swapped():
    both, swapped = routed([0, 1, 2, 1, 2], [0, 1, 2, 0, 1]), routed([1, 2, 2, 0, 1], [0, 1, 2, 0, 1])
    assert fluctuations(both, swapped) == [None, 0.0]
    assert fluctuations(both, routed([0, 1, 2, 2, 2], [0, 1, 2, 0, 1])) == [None, 0.25]
    assert fluctuations(both, routed([0, 1, 2, 1, 2, 0], [0, 1, 2, 0, 1, 3])) == [None, 0.25]  # no longer dropped


def test_an_interrupted_validation_does_not_count():
    found = probe("switch")
    found.see(routed([0, 0, 0, 0]))
    found.fluctuation(CPU)
    found.see(routed([1, 1, 1, 1]))  # no fluctuation() follows
    found.see(routed([0, 0, 0, 0]))
    assert found.fluctuation(CPU) == 0.0


def test_the_routes_of_a_hash_never_change_and_a_dense_model_has_none():
    for router, layers, expected in (("hash", [1], 0.0), ("hash", [], None)):
        found = probe(router, layers)
        found.see({})
        assert found.fluctuation(CPU) == expected
