"""A run goes on from its newest sound checkpoint, where it is the same kind of run, and mixes with no other."""

import dataclasses
import re

import pytest

from train.checkpoint.commit import commit_checkpoint
from train.checkpoint.run_folder import (
    check_resume,
    check_run_folder,
    checkpoint_dir,
    run_identity,
    save_run_config,
)
from train.config.arguments import load_run_config
from train.config.run_config import RunConfig

DATA = {
    "tokenizer_digest": "sha256:tokenizer", "corpus_digest": "sha256:text", "route_table_digests": ["sha256:one"],
    "predictions_digest": None,
}  # fmt: skip


def run_config(folder, **fields) -> RunConfig:
    defaults = {"sparse_layers": [1], "num_experts": 4, "route_table": "table"}
    return RunConfig("shards", run_dir=str(folder), **{**defaults, **fields})


def identity(config: RunConfig, **data) -> dict:
    return run_identity(config, data={**DATA, **data})


def write_checkpoint(config: RunConfig, step: int, *, stored_identity=None):
    def write(partial):
        (partial / "config.json").write_text("{}")
        return ["config.json"]

    folder, facts = checkpoint_dir(config, step), {"step": step, "identity": stored_identity or identity(config)}
    commit_checkpoint(folder, write, facts, rank=0, gather=lambda value: [value])
    (folder.parent.parent / "run.yaml").touch()
    return folder


def damage(folder) -> None:
    (folder / "config.json").write_text("{ }")


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    config = run_config(tmp_path)
    write_checkpoint(config, 9)
    damage(write_checkpoint(config, 10, stored_identity={"seed": 7}))
    check_run_folder(config)
    check_resume(config, identity(config))  # compared with step 9


def test_a_run_without_any_sound_checkpoint_does_not_begin_again(tmp_path):
    config = run_config(tmp_path)
    damage(write_checkpoint(config, 10))
    with pytest.raises(ValueError, match=r"none of the 1 checkpoints in .* is sound \(.*config.json is 3 bytes"):
        check_run_folder(config)


def test_a_run_killed_in_its_first_save_begins_again(tmp_path):
    config = run_config(tmp_path)
    (tmp_path / "run.yaml").touch()
    (tmp_path / "checkpoints" / "step_00000010.partial").mkdir(parents=True)
    check_run_folder(config)
    check_resume(config, identity(config))


def test_the_same_run_may_resume(tmp_path):
    config = run_config(tmp_path)
    write_checkpoint(config, 10)
    check_resume(config, identity(config))


# Other values than run_config's, of all that must stay and of all that may change.
OTHER_FACTS = {
    "tokenizer_digest": "sha256:other", "corpus_digest": "sha256:other", "route_table_digests": ["sha256:other"],
    "predictions_digest": "sha256:other",
}  # fmt: skip
OTHER = {
    "vocab_size": 99, "context_length": 64, "hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 64,
    "activation": "relu", "dropout": 0.1, "position_embedding": "sinusoidal", "sparse_layers": [2], "num_experts": 8,
    "placement": "insert", "num_sublayers": 3, "global_batch_size": 64, "optimizer": "sgd", "lr": 0.5, "beta1": 0.5,
    "beta2": 0.5, "adam_epsilon": 0.5, "weight_decay": 0.5, "schedule": "cosine", "warmup_steps": 5, "decay_steps": 5,
    "precision": "bf16", "seed": 1, "eval_fraction": 0.5, "document_mask": True,
    "router": "switch", "router_aux_loss_coef": 0.2, "router_z_loss_coef": 0.1, "router_jitter_noise": 0.1, "capacity_factor": 1.5,
    "expert_choice_cap": 2,
}  # fmt: skip
FREE = {
    "train_data": "moved/train", "eval_data": "moved/valid", "route_table": ["moved/table"],
    "share_route_table": True, "max_steps": 5000, "micro_batch_size": 4, "max_grad_norm": 0.5, "grad_norm_scope": "shared",
    "activation_checkpointing": True, "ds_config": "other", "run_dir": "moved/run", "log_every": 1, "eval_every": 1,
    "eval_sequences": 5, "save_every": 1, "resume": "must", "loggers": ["csv"], "dry_run": True, "dry_run_world_size": 4,
    "ep_size": 2, "zero_stage": 2, "keep_last": 2, "keep_every": 10, "allow_mismatch": ["lr"], "max_nonfinite_steps": 3,
    "stop_on_failed_save": True, "async_save": True, "hang_timeout_seconds": 5.0,
    "loader_workers": 2,
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
    fields |= {"route_table": []} if name == "router" else {}  # a router that learns has none
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


def test_the_micro_batch_within_which_a_router_balances_must_stay(tmp_path):
    learned = {"router": "switch", "route_table": []}
    config = run_config(tmp_path, **learned)
    write_checkpoint(config, 10)
    with pytest.raises(ValueError, match="written with micro_batch_size=16 but this run has micro_batch_size=4"):
        check_resume(config, identity(run_config(tmp_path, micro_batch_size=4, **learned)))


def test_a_checkpoint_from_before_a_field_existed_has_its_default(tmp_path):
    config = run_config(tmp_path)
    write_checkpoint(config, 10, stored_identity={k: v for k, v in identity(config).items() if k != "eval_fraction"})
    check_resume(config, identity(config))
    with pytest.raises(ValueError, match="written with eval_fraction=0.0 but this run has eval_fraction=0.5"):
        check_resume(config, identity(run_config(tmp_path, eval_fraction=0.5)))


@pytest.mark.parametrize("name", ["lr", "route_table_digests"])
def test_a_mismatch_may_be_allowed_field_by_field(tmp_path, name):
    other = {"lr": 0.5, "route_table_digests": ["sha256:other"]}
    write_checkpoint(run_config(tmp_path), 10)
    config = run_config(tmp_path, allow_mismatch=[name])
    check_resume(config, {**identity(config), name: other[name]})
    with pytest.raises(ValueError, match="written with seed=0 but this run has seed=1.*--allow_mismatch seed"):
        check_resume(config, {**identity(config), name: other[name], "seed": 1})


def test_only_what_is_compared_can_be_allowed(tmp_path):
    config = run_config(tmp_path, allow_mismatch=["learning_rate"])
    with pytest.raises(ValueError, match="allow_mismatch names 'learning_rate', which is not compared.*lr"):
        check_resume(config, identity(config))


def test_a_checkpoint_that_does_not_say_what_it_is_of_is_refused(tmp_path):
    config = run_config(tmp_path)
    write_checkpoint(config, 10, stored_identity={"hidden_size": 128})
    with pytest.raises(ValueError, match="written with .*=None but this run has"):
        check_resume(config, identity(config))


def test_run_yaml_is_a_recipe_of_the_same_run(tmp_path):
    config = run_config(
        tmp_path / "run", lr=3e-4, eval_data=None, loggers=["csv"], eval_sequences=5, sparse_layers=[1, 3],
        route_table=["one, with a comma", "two"],
    )  # fmt: skip
    save_run_config(config)
    assert load_run_config(["--config", str(tmp_path / "run" / "run.yaml")]) == config


def test_names_of_steps_sort_as_numbers():
    names = [checkpoint_dir(run_config("run"), step).name for step in (5, 90, 1000, 99_999_999)]
    assert sorted(names) == names


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_a_new_or_empty_run_dir_is_accepted(tmp_path, resume):
    check_run_folder(run_config(tmp_path, resume=resume))
    check_run_folder(run_config(tmp_path / "new", resume=resume))


def test_a_run_dir_that_a_killed_start_left_without_run_yaml_is_accepted(tmp_path):
    (tmp_path / "heartbeats").mkdir()
    (tmp_path / ".run.yaml.4711.tmp").touch()
    check_run_folder(run_config(tmp_path))


@pytest.mark.parametrize("resume", ["auto", "must", "never"])
def test_a_run_dir_that_holds_something_else_is_refused(tmp_path, resume):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path} exists") + ".*run.yaml"):
        check_run_folder(run_config(tmp_path, resume=resume))


def test_a_run_dir_that_holds_a_run_is_gone_on_with_unless_that_is_forbidden(tmp_path):
    write_checkpoint(run_config(tmp_path), 10)
    for resume in ("auto", "must"):
        check_run_folder(run_config(tmp_path, resume=resume))
    with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + ".*resume=never"):
        check_run_folder(run_config(tmp_path, resume="never"))


@pytest.mark.parametrize("exists", [False, True])
def test_a_run_that_must_be_gone_on_with_must_have_a_checkpoint(tmp_path, exists):
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
        (folder / "run.yaml").touch()
    with pytest.raises(ValueError, match=re.escape(f"resume=must, but run_dir {folder} holds no checkpoint")):
        check_run_folder(run_config(folder, resume="must"))
