"""Ranks train the parameters of one plain process, with any ZeRO stage and expert-parallel size."""

import pytest

from tests.distributed.ranks import run_ranks
from tests.distributed.training import run_config, train_on_ranks, train_plainly, train_plainly_as_ranks
from tests.models.hashes import HASHES
from tests.models.routers import ROUTERS

pytestmark = pytest.mark.distributed


def largest_difference(ranks: list[dict], expected: dict) -> float:
    """The largest difference of any parameter on any rank; some rank must hold every expert."""
    held = {name for parameters in ranks for name in parameters}
    assert held == set(expected)
    return max((p[name] - expected[name]).abs().max().item() for p in ranks for name in p)


@pytest.mark.parametrize("world_size, ep_sizes, stages", [(2, (1, 2), (0, 1, 2, 3)), (4, (2, 4), (0, 1, 2))])
def test_ranks_equal_one_process(world_size, ep_sizes, stages):
    configs = [{"ep_size": ep, "zero_stage": stage} for ep in ep_sizes for stage in stages]
    configs += [{"ep_size": 2, "activation_checkpointing": True}]
    results = run_ranks(train_on_ranks, world_size, configs=configs)
    expected = train_plainly(run_config())
    for index, config in enumerate(configs):
        difference = largest_difference([rank[index] for rank in results], expected)
        assert difference < 1e-6, f"{config} differs from one process by {difference}"


def test_every_hash_trains_on_two_ranks_as_in_one_process():
    configs = [{"routing": name, "ep_size": 2, "max_steps": 2} for name in HASHES]
    results = run_ranks(train_on_ranks, 2, configs=configs)
    for index, name in enumerate(HASHES):
        expected = train_plainly(run_config(max_steps=2), routing=name)
        difference = largest_difference([rank[index] for rank in results], expected)
        assert difference < 1e-6, f"{name} differs from one process by {difference}"


FULL_SWITCH = "switch, full experts and jitter"
LEARNED = [
    *({"routing": name, "ep_size": 2} for name in ROUTERS),
    *({"routing": FULL_SWITCH, "ep_size": ep, "zero_stage": stage} for ep, stage in ((1, 1), (2, 0), (2, 2))),
    *({"routing": name, "ep_size": 2, "zero_stage": 3} for name in ("token_switch", "base")),
    *({"routing": name, "ep_size": 2, "activation_checkpointing": True} for name in ("gshard, full experts", "base")),
    {"routing": "token_switch", "ep_size": 2, "activation_checkpointing": True, "zero_stage": 3},
]


def test_every_learned_router_trains_on_two_ranks_as_in_one_process_on_their_micro_batches():
    results = run_ranks(train_on_ranks, 2, configs=[{**config, "max_steps": 2} for config in LEARNED])
    expected = {name: train_plainly_as_ranks(run_config(max_steps=2), routing=name, world_size=2) for name in ROUTERS}
    for index, config in enumerate(LEARNED):
        difference = largest_difference([rank[index] for rank in results], expected[config["routing"]])
        assert difference < 1e-6, f"{config} differs from one process by {difference}"


def test_clipping_by_all_or_the_shared_parameters_equals_that_of_one_process():
    configs = [
        {"ep_size": ep, "zero_stage": stage, "max_grad_norm": 0.1, "grad_norm_scope": grad_norm_scope}
        for grad_norm_scope in ("all", "shared")
        for ep in (1, 2)
        for stage in (0, 1, 2)
    ]
    results = run_ranks(train_on_ranks, 2, configs=configs)
    for index, config in enumerate(configs):
        expected = train_plainly(run_config(), max_norm=0.1, shared_norm=config["grad_norm_scope"] == "shared")
        difference = largest_difference([rank[index] for rank in results], expected)
        assert difference < 1e-6, f"{config} differs from one process by {difference}"
