"""Weight decay reaches matrices only, and every schedule passes through the values that its name promises."""

import pytest
import torch

from models.configuration_hash_gpt import HashGPTConfig
from models.sparse_ffn import SparseFFN
from train.config.run_config import SCHEDULES, RunConfig
from train.engine.model import build_model
from train.engine.optimizer import make_optimizer, make_schedule, parameter_groups
from train.parallel.expert_parallel import ExpertParallelExperts


def tiny_model(**fields):
    network = HashGPTConfig(
        vocab_size=11, max_position_embeddings=4, hidden_size=4, num_hidden_layers=2, num_attention_heads=2,
        sparse_layers=[1], num_experts=3, bos_token_id=0, eos_token_id=0, **fields,
    )  # fmt: skip
    return build_model(network, route_tables=torch.zeros(1, 11, 1), ep_size=1, seed=0)


class FakeExperts(ExpertParallelExperts):
    """The parameters of expert-parallel experts, without any process group."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.ep_group_name = "ep_size_2"
        self.experts = torch.nn.Module()
        for name in ("w1", "w2", "w3"):
            setattr(self.experts, name, torch.nn.Parameter(torch.zeros(2, 4, 4)))


class FakeSparseFFN(SparseFFN):
    """A sparse layer that is nothing but such experts."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.experts = FakeExperts()


def names_by_decay(model, weight_decay=0.1) -> dict[float, set[str]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decays = {0.0: set(), weight_decay: set()}
    for group in parameter_groups(model, weight_decay=weight_decay):
        decays[group["weight_decay"]] |= {names[id(parameter)] for parameter in group["params"]}
    return decays


def test_biases_and_norms_never_decay_and_matrices_do():
    decays = names_by_decay(tiny_model())
    without = {name for names in decays.values() for name in names if "bias" in name or ".ln_" in name}
    assert decays[0.0] == without
    assert {"transformer.wte.weight", "transformer.h.0.mlp.c_fc.weight"} <= decays[0.1]
    assert {f"transformer.h.1.mlp.experts.{name}_proj" for name in ("up", "down")} <= decays[0.1]
    # A stack of biases is a matrix in shape.
    assert {f"transformer.h.1.mlp.experts.{name}_proj_bias" for name in ("up", "down")} <= decays[0.0]


def test_every_parameter_is_in_one_group_and_the_tied_embedding_counts_once():
    model = tiny_model()
    in_groups = [parameter for group in parameter_groups(model, weight_decay=0.1) for parameter in group["params"]]
    assert sorted(map(id, in_groups)) == sorted(map(id, model.parameters()))
    assert model.lm_head.weight is model.transformer.wte.weight
    assert sum(parameter is model.lm_head.weight for parameter in in_groups) == 1


def test_groups_without_expert_parallelism_are_not_marked_as_experts():
    groups = parameter_groups(tiny_model(), weight_decay=0.1)
    assert [group["name"] for group in groups] == ["shared", "shared_without_decay", "experts", "experts"]
    assert not any("moe" in group for group in groups)


def test_expert_parallel_parameters_carry_the_name_of_their_ranks():
    model = torch.nn.ModuleDict({"mlp": FakeSparseFFN(), "norm": torch.nn.LayerNorm(4)})
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [
        (group["name"], group["weight_decay"], group.get("moe", False), [names[id(p)] for p in group["params"]])
        for group in parameter_groups(model, weight_decay=0.1)
    ]
    assert groups == [
        ("ep_size_2", 0.1, True, ["mlp.experts.experts.w1", "mlp.experts.experts.w2"]),
        ("ep_size_2", 0.0, True, ["mlp.experts.experts.w3"]),
        ("shared_without_decay", 0.0, False, ["norm.weight", "norm.bias"]),
    ]


def test_the_optimizer_has_the_run_configs_numbers():
    fields = {"lr": 0.5, "beta1": 0.7, "beta2": 0.8, "adam_epsilon": 1e-3, "weight_decay": 0.1}
    adam = make_optimizer(tiny_model(), RunConfig("shards", **fields))
    assert isinstance(adam, torch.optim.AdamW)  # decoupled weight decay
    group = adam.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.5, (0.7, 0.8), 1e-3, 0.1)
    sgd = make_optimizer(tiny_model(), RunConfig("shards", optimizer="sgd", **fields))
    assert isinstance(sgd, torch.optim.SGD) and sgd.param_groups[0]["momentum"] == 0


def test_adam_is_fused_and_updates_as_the_plain_one():
    weights = [torch.linspace(-1, 1, 7), torch.linspace(-1, 1, 7)]
    assert make_optimizer(tiny_model(), RunConfig("shards")).defaults["fused"]
    for weight, fused in zip(weights, (True, False), strict=True):
        optimizer = torch.optim.AdamW([weight.requires_grad_()], lr=0.1, weight_decay=0.1, fused=fused)
        for step in range(3):
            weight.grad = torch.linspace(1, 2 + step, 7)
            optimizer.step()
    torch.testing.assert_close(*weights)


def learning_rates(**fields) -> list[float]:
    """The rate of each step 0..20, of which 4 are warm-up and the maximum is 1."""
    config = RunConfig("shards", **{"lr": 1.0, "max_steps": 20, "warmup_steps": 4, **fields})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.lr)
    schedule, rates = make_schedule(optimizer, config), []
    for _ in range(config.max_steps + 1):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_warms_up_in_a_line_and_is_highest_at_its_end(schedule):
    rates = learning_rates(schedule=schedule, decay_steps=8)
    assert rates[:5] == [0, 0.25, 0.5, 0.75, 1.0]
    assert max(rates) == 1.0


# After step 4: half of the 16 steps left are over at step 12, all at step 20.
MIDDLE_AND_END = {
    "constant": (1.0, 1.0),
    "inverse_sqrt": (3**-0.5, 5**-0.5),  # sqrt(4 / 12), sqrt(4 / 20)
    "polynomial": (0.5, 0.0),
    "cosine": (0.5, 0.0),
    "warmup_stable_decay": (1.0, 0.0),  # the last 8 steps decay
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_ends_where_its_name_says(schedule):
    rates = learning_rates(schedule=schedule, decay_steps=8)
    assert (rates[12], rates[20]) == pytest.approx(MIDDLE_AND_END[schedule], abs=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_without_warm_up_begins_at_the_maximum(schedule):
    assert learning_rates(schedule=schedule, warmup_steps=0, decay_steps=8)[0] == 1.0


def test_the_norms_of_stacked_experts_never_decay():
    model = torch.nn.ModuleDict({"experts": torch.nn.Module()})
    for name in ("up_proj", "norm_weight", "norm_bias"):
        setattr(model["experts"], name, torch.nn.Parameter(torch.zeros(2, 3, 4)))
    assert names_by_decay(model) == {0.1: {"experts.up_proj"}, 0.0: {"experts.norm_weight", "experts.norm_bias"}}
