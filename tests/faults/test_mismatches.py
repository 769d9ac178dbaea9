"""Files and fields that do not belong to a run are refused before its model is built, with both values."""

import dataclasses
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from data_prep.counts.counts_file import read_counts
from data_prep.tables.make_route_table import TableOptions, make_route_table
from data_prep.tables.route_table_file import write_route_table
from data_prep.tokenizing.tokenize_folder import tokenize_folder
from data_prep.train_tokenizer import save_tokenizer, train_tokenizer
from tests.tiny_run import NUM_EXPERTS, TinyData, make_tiny_data, tiny_run_fields
from tests.train.checkpoint.test_commit import ALONE
from train.checkpoint.commit import Snapshot, commit
from train.checkpoint.run_folder import save_run_config
from train.config.recipe_file import read_recipe
from train.config.run_paths import checkpoint_dir
from train.inputs import open_inputs
from train.main import main
from train.processes.exit_codes import EXIT_BAD_INPUT


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> TinyData:
    """Data and tables, and a run with a checkpoint on them."""
    data = make_tiny_data(tmp_path_factory.mktemp("original"))
    recipe = data.folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tiny_run_fields(data, eval_data=None)))
    config = read_recipe(recipe)
    save_run_config(config)
    facts = {"step": 2, "resume_compatibility": open_inputs(config).resume_compatibility(config)}
    commit(Snapshot(checkpoint_dir(config.run_dir, 2), [], facts), ALONE)
    return data


@pytest.fixture
def data(original, tmp_path) -> TinyData:
    """A copy that a test may damage."""
    return TinyData(Path(shutil.copytree(original.folder, tmp_path / "data")))


def tokenize_again(data: TinyData, *, words: list[str], tokenizer: Path) -> None:
    (data.folder / "train.txt").write_text("\n\n".join(words))
    shutil.rmtree(data.train)
    tokenize_folder([data.folder / "train.txt"], tokenizer=tokenizer, output=data.train)


def other_corpus(data: TinyData) -> list:
    text = (data.folder / "train.txt").read_text().replace("old baker", "new baker")
    tokenize_again(data, words=[text], tokenizer=data.tokenizer)
    return ["written with corpus_digest=", "but this run has corpus_digest="]


def other_tokenizer(data: TinyData) -> list:
    text = (data.folder / "train.txt").read_text()
    save_tokenizer(train_tokenizer([text[::-1]], vocab_size=300), data.folder / "other")
    tokenize_again(data, words=[text], tokenizer=data.folder / "other")
    return ["tokenizer"]


def other_table(data: TinyData) -> list:
    options = TableOptions(NUM_EXPERTS, method="random", seed=7)
    write_route_table(data.route_table, make_route_table(read_counts(data.counts), options))
    return ["written with route_table_digests=", "but this run has route_table_digests="]


def table_of_other_experts(data: TinyData) -> list:
    write_route_table(data.route_table, make_route_table(read_counts(data.counts), TableOptions(8)))
    return ["num_experts=4", "8"]


def table_of_other_vocabulary(data: TinyData) -> list:
    counts = read_counts(data.counts)
    bigger = dataclasses.replace(counts, counts=np.append(counts.counts, [1, 1]), vocab_size=302)
    write_route_table(data.route_table, make_route_table(bigger, TableOptions(NUM_EXPERTS)))
    return ["300", "302"]


def flip_a_bit(path: Path, position: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 1
    path.write_bytes(content)


def flipped_table(data: TinyData) -> list:
    flip_a_bit(data.route_table, 0.9)
    return [data.route_table.name]


def truncated_table(data: TinyData) -> list:
    data.route_table.write_bytes(data.route_table.read_bytes()[:-5])
    return [data.route_table.name]


def truncated_shard(data: TinyData) -> list:
    shard = next(data.train.glob("*.bin"))
    shard.write_bytes(shard.read_bytes()[:-2])
    return [shard.name]


def flipped_manifest(data: TinyData) -> list:
    flip_a_bit(data.train / "manifest.json", 0.5)
    return ["manifest"]


def damaged_checkpoint(data: TinyData) -> list:
    flip_a_bit(data.folder / "run" / "checkpoints" / "step_00000002" / "manifest.json", 0.5)
    return ["none of the 1 checkpoints", "manifest.json"]


SPOILT = [
    other_corpus, other_tokenizer, other_table, table_of_other_experts, table_of_other_vocabulary, flipped_table,
    truncated_table, truncated_shard, flipped_manifest, damaged_checkpoint,
]  # fmt: skip
FIELDS = {"lr": "0.5", "hidden_size": "32", "seed": "3", "num_experts": "2", "global_batch_size": "16"}


def refusal(data: TinyData, capsys, *arguments) -> str:
    """The error message of a refused run, which must come within seconds."""
    fields = {"train_data": data.train, "route_table": data.route_table, "run_dir": data.folder / "run"}
    command = ["--config", str(data.folder / "recipe.yaml")]
    command += [word for name, value in fields.items() for word in (f"--{name}", str(value))]
    start = time.monotonic()
    assert main([*command, "--ep_size", "1", *arguments]) == EXIT_BAD_INPUT
    assert time.monotonic() - start < 5
    return capsys.readouterr().err


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_a_damaged_or_foreign_file_is_refused_with_its_name(data, capsys, spoil):
    expected = spoil(data)
    message = refusal(data, capsys)
    assert all(text in message for text in expected), message


@pytest.mark.parametrize("name", FIELDS)
def test_another_value_of_a_field_is_refused_with_both(data, capsys, name):
    message = refusal(data, capsys, f"--{name}", FIELDS[name])
    manifest = json.loads((data.folder / "run/checkpoints/step_00000002/manifest.json").read_text())
    found = manifest["checkpoint"]["resume_compatibility"][name]
    assert str(found) in message and FIELDS[name] in message, message
