"""What one step of a run may wait for, send and keep, on two ranks: step_budget.txt is the table.

A step waits for the device once, behind its last backward pass, to learn whether every gradient is finite. Everything
else that it waits for is a message between hosts ("host" in the table). The table holds, for rank 0 and a step of two
micro-batches, how often each collective is called in each phase, in which format, between which ranks, and the bytes.
"""

import re
from pathlib import Path

import pytest

from launch.gpu_acceptance.measuring.engines import zero_3_settings
from tests.distributed.ranks import run_ranks
from tests.distributed.step_budget_checks import spend

pytestmark = pytest.mark.distributed
TABLE = Path(__file__).with_name("step_budget.txt")
STAGES = {"fp32": (0, 1, 2, 3), "bf16": (1, 2, 3)}
CASES = {
    f"{precision} zero {stage} ep {ep_size}": {"precision": precision, "zero_stage": stage, "ep_size": ep_size}
    for precision, stages in STAGES.items()
    for stage in stages
    for ep_size in (1, 2)
}
CASES["fp32 zero 1 ep 2 recomputed"] = {**CASES["fp32 zero 1 ep 2"], "activation_checkpointing": True}
CASES["fp32 zero 3 ep 1 recomputed"] = {**CASES["fp32 zero 3 ep 1"], "activation_checkpointing": True}
CASES["fp32 zero 3 ep 1 MultiHash"] = {**CASES["fp32 zero 3 ep 1"], "routing": "MultiHash 2"}
DENSE = {"routing": "dense", "sparse_layers": [], "route_table": []}
CASES["fp32 zero 1 dense"] = {**CASES["fp32 zero 1 ep 1"], **DENSE}
CASES["bf16 zero 1 dense"] = {**CASES["bf16 zero 1 ep 1"], **DENSE}


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """The fields of Spent for every case, on rank 0."""
    folder = tmp_path_factory.mktemp("budget")
    ds_config = zero_3_settings(folder)
    configs = [{**case, "max_grad_norm": 1.0, "ds_config": ds_config} for case in CASES.values()]
    return dict(zip(CASES, run_ranks(spend, 2, configs=configs, folder=str(folder))[0], strict=True))


@pytest.fixture(scope="module")
def table() -> dict[str, str]:
    """The lines of the table by case."""
    blocks = TABLE.read_text().strip().split("\n\n")
    return dict(block.split("\n", 1) for block in blocks)


def rendered(sent: dict) -> str:
    lines = [
        f"  {phase:<8}  {name:<14}  {dtype:<8}  {group:<13}  {calls:>2} x {size:>7,} bytes"
        for (phase, name, dtype, group), (calls, size) in sent.items()
    ]
    return "\n".join(lines)


def test_the_table_has_every_case(table):
    assert list(table) == list(CASES)


@pytest.mark.parametrize("case", CASES)
def test_a_step_sends_what_the_table_says(steps, table, case):
    assert rendered(steps[case]["sent"]) == table[case]


@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_for_the_device_once_and_a_micro_batch_never(steps, case):
    assert steps[case]["waits"] == {"forward": {}, "backward": {}, "step": {"_local_scalar_dense": 1}}


@pytest.mark.parametrize("case", [case for case in CASES if "zero 3 ep 1" in case])
def test_zero_3_frees_the_experts_between_forward_and_backward_pass(steps, case):
    assert steps[case]["num_gathered"] > 0 and steps[case]["num_alive"] == 0


def test_gradients_are_added_over_ranks_in_fp32(table):
    for case, lines in table.items():
        reduced = re.findall(r"backward  (?:all_reduce|reduce_scatter) +(\w+)", lines)
        assert reduced and set(reduced) == {"float32"}, case


def test_recomputed_blocks_send_no_token_twice(table):
    assert table["fp32 zero 1 ep 2 recomputed"] == table["fp32 zero 1 ep 2"]
    # 2 micro-batches * 2 sparse layers * (there and back)
    assert re.findall(r"all_to_all .* (\d) x", table["fp32 zero 1 ep 2"]) == ["8", "8"]
