"""A run resumes bit for bit from a checkpoint, and on another number of ranks from the same weights and moments."""

import json
from pathlib import Path

import pytest
import torch

from tests.distributed.checkpoint_checks import SAVED_AT, resume_and_train, train_and_save
from tests.distributed.ranks import run_ranks
from tests.models.hashes import HASHES
from train.checkpoint.files.manifest import MANIFEST

pytestmark = pytest.mark.distributed
ADAM = {
    "optimizer": "adam",
    "lr": 1e-2,
    "max_grad_norm": 1.0,
    "weight_decay": 0.1,
    "schedule": "inverse_sqrt",
    "warmup_steps": 2,
}
WAYS = [
    {**ADAM, "ep_size": 2, "zero_stage": 1},
    {**ADAM, "ep_size": 2, "zero_stage": 0},
    {**ADAM, "ep_size": 2, "zero_stage": 2},
    {**ADAM, "ep_size": 1, "zero_stage": 1},
    {**ADAM, "ep_size": 1, "zero_stage": 3},
    {**ADAM, "ep_size": 2, "zero_stage": 3},
    {**ADAM, "ep_size": 2, "zero_stage": 1, "precision": "bf16"},
    {**ADAM, "ep_size": 2, "zero_stage": 2, "precision": "bf16"},
    {"optimizer": "sgd", "ep_size": 2, "zero_stage": 1},
    {"optimizer": "sgd", "ep_size": 2, "zero_stage": 1, "routing": "inserted, 3 sublayers"},
    *({**ADAM, "ep_size": 2, "zero_stage": 1, "routing": name} for name in HASHES if name != "token"),
    {**ADAM, "ep_size": 2, "zero_stage": 1, "routing": "switch, full experts and jitter", "precision": "bf16"},
    {**ADAM, "ep_size": 2, "zero_stage": 2, "routing": "token_switch"},
    {**ADAM, "ep_size": 2, "zero_stage": 3, "routing": "base"},
]
SGD_RUNS = [index for index, way in enumerate(WAYS) if way["optimizer"] == "sgd"]
LEARNED_RUNS = [index for index, way in enumerate(WAYS) if way.get("routing") in ("token_switch", "base")]
RESHAPED_RUNS = [0, 3, 4, *SGD_RUNS, *LEARNED_RUNS]
SHAPES = [{"ep_size": 1, "zero_stage": 1}, {"ep_size": 2, "zero_stage": 0}, {"ep_size": 4, "zero_stage": 2}]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Each way trained for 3 steps on 2 ranks, with a checkpoint at step 2: the folder and the states."""
    folder = str(tmp_path_factory.mktemp("runs"))
    return folder, run_ranks(train_and_save, 2, configs=WAYS, folder=folder, num_steps=3)


def model_files(run: Path) -> dict[str, bytes]:
    """The files of the exported model in a run's only checkpoint, which lie beside its training state."""
    [checkpoint] = (run / "checkpoints").iterdir()
    return {path.name: path.read_bytes() for path in checkpoint.iterdir() if path.is_file() and path.name != MANIFEST}


def check_each_element_is_read_once(results):
    """results: those of resume_and_train by rank."""
    for of_ranks in zip(*results, strict=True):
        num_elements = sum(len(values) for values in of_ranks[0]["saved"].values())
        assert sum(found["num_read"] for found in of_ranks) == num_elements


def test_a_resumed_run_ends_as_an_uninterrupted_one(runs, tmp_path):
    folder, untouched = runs
    configs = [{**way, "run": index} for index, way in enumerate(WAYS)]
    results = run_ranks(resume_and_train, 2, configs=configs, folder=folder, output=str(tmp_path), num_steps=3)
    check_each_element_is_read_once(results)
    for resumed in results:
        for way, found, expected in zip(WAYS, resumed, untouched[0], strict=True):
            assert same(found["saved"], expected["saved"]), way
            assert same(found["ended"], expected["ended"]), way
            assert found["manifest"]["num_samples"] == SAVED_AT * 8


@pytest.mark.parametrize("world_size", [1, 2, pytest.param(4, marks=pytest.mark.slow)])  # 4: 21 engines on 4 ranks
def test_weights_and_moments_are_bit_equal_on_any_number_and_shape_of_ranks(runs, tmp_path, world_size):
    shapes = [shape for shape in SHAPES if shape["ep_size"] <= world_size]
    pairs = [(shape, run) for shape in shapes for run in RESHAPED_RUNS]
    check_resumed_elsewhere(runs, pairs, tmp_path, world_size=world_size)


def test_weights_and_moments_are_bit_equal_on_four_ranks(runs, tmp_path):
    """Every run in one shape; with the slow tests, in every shape."""
    pairs = [(SHAPES[number % len(SHAPES)], run) for number, run in enumerate(RESHAPED_RUNS)]
    check_resumed_elsewhere(runs, pairs, tmp_path, world_size=4)


def check_resumed_elsewhere(runs, pairs, output, *, world_size):
    folder, untouched = runs
    configs = [
        {**WAYS[run], **shape, "run": run, "micro_batch_size": 1}
        for shape, run in pairs
        if shape["ep_size"] != WAYS[run]["ep_size"] or world_size != 2
    ]
    results = run_ranks(resume_and_train, world_size, configs=configs, folder=folder, output=str(output), num_steps=3)
    check_each_element_is_read_once(results)
    for index, (config, found) in enumerate(zip(configs, results[0], strict=True)):
        expected = untouched[0][config["run"]]
        assert same(found["saved"], expected["saved"]), config
        assert model_files(output / str(index)) == model_files(Path(folder) / str(config["run"])), config
        if config["run"] in SGD_RUNS:  # later steps differ only in the order of sums, which Adam would magnify
            for name, values in expected["ended"].items():
                torch.testing.assert_close(found["ended"][name], values, rtol=1e-4, atol=1e-5)


def test_checkpoints_of_four_ranks_resume_on_two(tmp_path):
    shapes = [{"ep_size": 4, "zero_stage": 1}, {"ep_size": 2, "zero_stage": 2, "precision": "bf16"}]
    shapes += [{"ep_size": 1, "zero_stage": 3}, {"ep_size": 4, "zero_stage": 0}]
    configs = [{**ADAM, **shape, "micro_batch_size": 1} for shape in shapes]
    saved = run_ranks(train_and_save, 4, configs=configs, folder=str(tmp_path), num_steps=2)
    two = [{"ep_size": 1, "zero_stage": 2}, {"ep_size": 2, "zero_stage": 1, "precision": "bf16"}]
    two += [{"ep_size": 2, "zero_stage": 0}, {"ep_size": 1, "zero_stage": 3}]
    configs = [{**ADAM, **shape, "run": run} for run, shape in enumerate(two)]
    output = tmp_path / "again"
    output.mkdir()
    results = run_ranks(resume_and_train, 2, configs=configs, folder=str(tmp_path), output=str(output), num_steps=2)
    check_each_element_is_read_once(results)
    for found, expected in zip(results[0], saved[0], strict=True):
        assert same(found["saved"], expected["saved"])


def test_the_manifest_records_how_the_checkpoint_was_made(runs):
    folder, _ = runs
    manifest = json.loads((Path(folder) / "0/checkpoints/step_00000002/manifest.json").read_text())["checkpoint"]
    assert (manifest["step"], manifest["updates"], manifest["world_size"], manifest["ep_size"]) == (2, 2, 2, 2)
    assert {"training/rank_00000.safetensors", "training/rank_00001.safetensors", "config.json"} <= set(
        manifest["files"]
    )
