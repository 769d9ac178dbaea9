"""The recipes of the paper's tables: each loads, and has the number of parameters that the paper implies."""

import dataclasses

import numpy as np
import pytest

from models.parameter_count import count_parameters
from train.config.arguments import load_run_config
from train.config.deepspeed_config import check_topology, deepspeed_config
from train.config.run_config import RunConfig
from train.data.layer_tables import LayerTable
from train.engine.network import network_config
from train.processes.project_root import ROOT

RECIPES = ROOT / "launch" / "recipes" / "paper"

# Decoder-only counterparts of appendix B.1: 11 layers, d = 1024, D = 4096, V = 8008, 256 learned positions.
FFN, WIDE, DEEP = 2 * 1024 * 4096 + 5120, 2 * 2048 * 6144 + 8192, 2 * 1536 * 4096 + 5632
BASELINE = 11 * (4 * 1024**2 + 4 * 1024 + FFN + 4 * 1024) + (8008 + 256) * 1024 + 2 * 1024
SIZES = {
    "table1_dense": BASELINE,
    "table1_wider": 11 * (4 * 2048**2 + 4 * 2048 + WIDE + 4 * 2048) + (8008 + 256) * 2048 + 2 * 2048,
    "table1_deeper": 22 * (4 * 1536**2 + 4 * 1536 + DEEP + 4 * 1536) + (8008 + 256) * 1536 + 2 * 1536,
    "table1_hash_1x64": BASELINE + 63 * FFN,
    "table1_hash_1x128": BASELINE + 127 * FFN,
    "table1_hash_5x16": BASELINE + 5 * 15 * FFN,
    "figure3_hash_1x16": BASELINE + 15 * FFN,
    "table5_multihash_1x32_8": BASELINE + 31 * FFN,
    "table3_oracle": BASELINE + 63 * FFN,
    "table1_switch_1x64": BASELINE + 63 * FFN + 64 * 1024 + 64,
    "table1_switch_1x128": BASELINE + 127 * FFN + 128 * 1024 + 128,
    "table1_switch_5x16": BASELINE + 5 * (15 * FFN + 16 * 1024 + 16),
    "table5_switch_1x32": BASELINE + 31 * FFN + 32 * 1024 + 32,
    "table7_switch_1x16": BASELINE + 15 * FFN + 16 * 1024 + 16,
    "table6_token_switch_1x64": BASELINE + 63 * FFN + 64 * 1024 + 64 + 8008 * 1024,
    "b2_base_1_layer": 4_536_061_952 + 32 * 2048,  # the paper does not count the centroids
    "b2_hash_1_layer": 4_536_061_952,  # the paper's own number
    "b2_hash_3_layers": 4_536_061_952,
    "b2_hash_h100_8": 4_536_061_952,
    "b2_hash_h100_64": 4_536_061_952,
}


def recipe(name: str) -> RunConfig:
    return load_run_config(["--config", str(RECIPES / f"{name}.yaml")])


def count(name: str):
    config = recipe(name)
    num_hashes = int(name.rsplit("_", 1)[1]) if "multihash" in name else 1
    table = LayerTable("token", 0, num_hashes, {}, np.zeros(config.num_experts))
    network = network_config(
        config,
        vocab_size=config.vocab_size or 8008,
        end_token_id=0,
        layer_tables=[table] * len(config.sparse_layers) if config.router == "hash" else [],
    )
    return count_parameters(network)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml") if not path.stem.endswith("base")))
def test_every_recipe_describes_a_network(name):
    assert count(name).total > 0


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_has_the_parameters_of_its_row(name):
    assert count(name).total == SIZES[name]


def test_both_forms_of_the_base_comparison_have_the_same_parameters():
    for name, per_expert in (("b2_hash_1_layer", 100_706_304), ("b2_hash_3_layers", 33_568_768)):
        assert (count(name).shared, count(name).per_expert) == (1_313_460_224, per_expert)


@pytest.mark.parametrize(
    "learned, hashed",
    [("table1_switch_1x64", "table1_hash_1x64"), ("table1_switch_5x16", "table1_hash_5x16"),
     ("table2_switch_1x64", "table2_hash_1x64"), ("table4_switch_1x16_8k", "table4_hash_1x16_8k"),
     ("table6_token_switch_1x128", "table1_hash_1x128"), ("b2_base_1_layer", "b2_hash_1_layer")],
)  # fmt: skip
def test_a_learned_row_differs_from_its_hash_row_in_routing_alone(learned, hashed):
    first, second = (dataclasses.asdict(recipe(name)) for name in (learned, hashed))
    assert {name for name in first if first[name] != second[name]} == {"router", "route_table", "run_dir"}


@pytest.mark.parametrize("name, world_size", [("b2_hash_h100_8", 8), ("b2_hash_h100_64", 64)])
def test_the_recipes_of_h100s_train_the_same_model_on_the_same_batches(name, world_size):
    first, second = (dataclasses.asdict(recipe(of)) for of in ("b2_hash_1_layer", name))
    free = {spec.name for spec in dataclasses.fields(RunConfig) if spec.metadata.get("free_on_resume")}
    assert {field for field in first if first[field] != second[field]} <= free
    check_topology(recipe(name), world_size=world_size)
    deepspeed_config(recipe(name), world_size=world_size)


def test_the_rows_of_table_9_differ_in_the_balancing_loss_alone():
    names = [f"table9_switch_balance_{value}" for value in ("0", "0.01", "0.05", "0.5")]
    losses = [recipe(name).router_aux_loss_coef for name in (*names, "table1_switch_1x64")]
    assert losses == [0, 0.01, 0.05, 0.5, 0.1]
