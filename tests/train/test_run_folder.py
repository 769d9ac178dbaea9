"""A run goes on from its newest complete checkpoint, where it is the same kind of run, and mixes with no other."""

import dataclasses
import json
import re

import pytest

from train.arguments import load_run_config
from train.config import RunConfig
from train.run_folder import (
    check_resume,
    check_run_folder,
    checkpoints_dir,
    find_checkpoint,
    read_state,
    run_identity,
    save_run_config,
    step_name,
)

DATA = {"corpus_digest": "sha256:text", "route_table_digests": ["sha256:one"]}


def run_config(folder, **fields) -> RunConfig:
    defaults = {"sparse_layers": [1], "num_experts": 4, "route_table": "table", "resume": True}
    return RunConfig("shards", run_dir=str(folder), **{**defaults, **fields})


def identity(config: RunConfig, **facts) -> dict:
    return run_identity(config, **{"world_size": 2, **DATA, **facts})


def write_checkpoint(config: RunConfig, step: int, *, complete=True, state=None):
    folder = checkpoints_dir(config) / step_name(step)
    folder.mkdir(parents=True)
    (folder / "mp_rank_00_model_states.pt").touch()
    if complete:
        (folder / "run_state.json").write_text(json.dumps({"step": step, **(state or identity(config))}))
    return folder


def test_a_new_run_has_no_checkpoint(tmp_path):
    assert find_checkpoint(run_config(tmp_path / "new")) is None


def test_the_complete_checkpoint_with_the_most_steps_is_found(tmp_path):
    config = run_config(tmp_path)
    write_checkpoint(config, 9)
    newest = write_checkpoint(config, 100)  # after step_9 also in the order of text
    write_checkpoint(config, 200, complete=False)  # killed while saving
    assert find_checkpoint(config) == newest
    assert read_state(newest)["step"] == 100


def test_a_run_killed_in_its_first_save_has_no_checkpoint(tmp_path):
    config = run_config(tmp_path)
    write_checkpoint(config, 10, complete=False)
    assert find_checkpoint(config) is None
    check_resume(config, identity(config))


def test_the_same_run_may_resume(tmp_path):
    config = run_config(tmp_path)
    write_checkpoint(config, 10)
    check_resume(config, identity(config))


# Other values than run_config's, of all that must stay and of all that may change.
OTHER_FACTS = {
    "world_size": 4, "corpus_digest": "sha256:other", "route_table_digests": ["sha256:other"],
    "predictions_digest": "sha256:other",
}  # fmt: skip
OTHER = {
    "vocab_size": 99, "context_length": 64, "width": 64, "num_layers": 6, "num_heads": 2, "ffn_size": 64,
    "activation": "relu", "dropout": 0.1, "position_embedding": "sinusoidal", "sparse_layers": [2], "num_experts": 8,
    "placement": "insert", "num_sublayers": 3, "global_batch_size": 64, "optimizer": "sgd", "lr": 0.5, "beta1": 0.5,
    "beta2": 0.5, "adam_epsilon": 0.5, "weight_decay": 0.5, "schedule": "cosine", "warmup_steps": 5, "decay_steps": 5,
    "precision": "bf16", "ep_size": 2, "zero_stage": 2, "seed": 1,
}  # fmt: skip
FREE = {
    "train_data": "moved/train", "valid_data": "moved/valid", "route_table": ["moved/table"],
    "share_route_table": True, "steps": 5000, "micro_batch_size": 4, "clip": 0.5, "clip_norm": "shared",
    "activation_checkpointing": True, "ds_config": "other", "run_dir": "moved/run", "log_every": 1, "eval_every": 1,
    "eval_sequences": 5, "save_every": 1, "resume": False, "monitors": ["csv"], "dry_run": True, "plan_ranks": 4,
}  # fmt: skip


def test_every_field_of_a_run_must_stay_or_may_change():
    names = {spec.name for spec in dataclasses.fields(RunConfig)}
    assert OTHER.keys() | FREE.keys() == names and not OTHER.keys() & FREE.keys()
    assert identity(run_config("run")).keys() == OTHER.keys() | OTHER_FACTS.keys()


@pytest.mark.parametrize("name, value", [*OTHER.items(), *OTHER_FACTS.items()])
def test_another_kind_of_run_is_refused_with_both_values(tmp_path, name, value):
    config = run_config(tmp_path)
    folder = write_checkpoint(config, 10)
    facts, fields = ({name: value}, {}) if name in OTHER_FACTS else ({}, {name: value})
    with pytest.raises(ValueError) as error:
        check_resume(config, identity(run_config(tmp_path, **fields), **facts))
    message = str(error.value)
    assert str(folder) in message
    assert f"written with {name}={identity(config)[name]} but this run has {name}={value}" in message


@pytest.mark.parametrize("name", FREE)
def test_where_things_lie_and_how_often_they_happen_may_change(tmp_path, name):
    config = run_config(tmp_path)
    write_checkpoint(config, 10)
    changed = {"train_data": "shards", **vars(config), name: FREE[name]}
    assert FREE[name] != getattr(config, name)
    check_resume(config, identity(RunConfig(**changed)))


def test_a_checkpoint_that_does_not_say_what_it_is_of_is_refused(tmp_path):
    config = run_config(tmp_path)
    write_checkpoint(config, 10, state={"width": 128})
    with pytest.raises(ValueError, match="written with .*=None but this run has"):
        check_resume(config, identity(config))


def test_without_resume_no_checkpoint_is_looked_at(tmp_path):
    write_checkpoint(run_config(tmp_path), 10)
    config = run_config(tmp_path, resume=False)
    check_resume(config, {**identity(config), "ep_size": 4})


def test_run_yaml_is_a_recipe_of_the_same_run(tmp_path):
    config = run_config(
        tmp_path / "run", lr=3e-4, valid_data=None, monitors=["csv"], eval_sequences=5, sparse_layers=[1, 3],
        route_table=["one, with a comma", "two"],
    )  # fmt: skip
    save_run_config(config)
    assert load_run_config(["--config", str(tmp_path / "run" / "run.yaml")]) == config


def test_names_of_steps_sort_as_numbers():
    steps = [5, 90, 1000, 99_999_999]
    assert sorted(map(step_name, steps)) == [step_name(step) for step in steps]


def test_a_new_or_empty_run_dir_is_accepted(tmp_path):
    check_run_folder(run_config(tmp_path, resume=False))
    check_run_folder(run_config(tmp_path / "new", resume=False))


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_dir_that_holds_something_else_is_refused(tmp_path, resume):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path} exists") + ".*run.yaml"):
        check_run_folder(run_config(tmp_path, resume=resume))


def test_a_run_dir_that_holds_a_run_wants_resume(tmp_path):
    (tmp_path / "run.yaml").touch()
    with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + ".*--resume"):
        check_run_folder(run_config(tmp_path, resume=False))
    check_run_folder(run_config(tmp_path, resume=True))


@pytest.mark.parametrize("exists", [False, True])
def test_resume_wants_a_run_to_go_on_with(tmp_path, exists):
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
    with pytest.raises(ValueError, match=re.escape(f"run_dir {folder} holds no run to go on with")):
        check_run_folder(run_config(folder, resume=True))
