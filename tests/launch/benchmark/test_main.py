"""One run of the benchmark on tiny layers, from the command to its files."""

import csv

import pytest

from launch.benchmark.layers.options import ALWAYS, OTHERS, SINGLE_PROCESS
from launch.benchmark.main import main

TINY = "--device cpu --hidden_size 8 --tokens_per_rank 256 --num_experts 4 --vocab_size 40 --context_length 32".split()


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The CSV of one run of the command over all variants, with 1 and 2 ranks."""
    folder = tmp_path_factory.mktemp("benchmark")
    flags = ["--ep_sizes", "1", "2", "--repetitions", "2", "--warmup", "1", "--output", str(folder)]
    assert main([*TINY, *flags]) == 0
    assert {path.name for path in folder.iterdir()} == {"layers.csv", "layers.png", "layers.txt"}
    return list(csv.DictReader((folder / "layers.csv").open()))


@pytest.mark.distributed
def test_every_variant_is_measured_with_the_ranks_it_supports(records):
    measured = {(int(record["ep_size"]), record["variant"]) for record in records}
    assert {name for ep_size, name in measured if ep_size == 1} == {*ALWAYS, *OTHERS}
    assert {name for ep_size, name in measured if ep_size == 2} == {*ALWAYS, *OTHERS} - {*SINGLE_PROCESS}


@pytest.mark.distributed
def test_the_hash_layer_sends_no_more_bytes_than_its_routes_need(records):
    sent = {r["variant"]: (float(r["sent"]), float(r["sent_bound"])) for r in records if r["ep_size"] == "2"}
    assert sent["hash"][0] == sent["hash"][1] > 0
    assert sent["deepspeed_dropless"][0] > sent["deepspeed_dropless"][1]
    assert sent["dense"] == (0, 0)


@pytest.mark.distributed
def test_only_a_capacity_drops_tokens(records):
    dropped = {record["variant"]: float(record["dropped"]) for record in records}
    assert dropped.pop("deepspeed_capacity") > 0
    assert set(dropped.values()) == {0}
