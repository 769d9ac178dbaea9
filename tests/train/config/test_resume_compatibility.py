"""A run resumes only from a checkpoint of the same kind of run; a mismatch is refused with both values."""

import dataclasses
from pathlib import Path

import pytest

from train.config.resume_compatibility import check_allowed_mismatches, check_compatible, resume_compatibility
from train.config.run_config import RunConfig

DATA = {
    "tokenizer_digest": "sha256:tokenizer", "corpus_digest": "sha256:text", "route_table_digests": ["sha256:one"],
    "predictions_digest": None,
}  # fmt: skip
CHECKPOINT = Path("run/checkpoints/step_00000010")


def run_config(**fields) -> RunConfig:
    defaults = {"sparse_layers": [1], "num_experts": 4, "route_table": "table"}
    return RunConfig(**{"train_data": "shards", **defaults, **fields})


def compatibility(config: RunConfig, **data) -> dict:
    return resume_compatibility(config, data={**DATA, **data})


def check(wanted: dict, *, stored: dict | None = None, allow_mismatch: tuple[str, ...] = ()) -> None:
    stored = compatibility(run_config()) if stored is None else stored
    check_compatible(stored, wanted, allow_mismatch=list(allow_mismatch), checkpoint=CHECKPOINT)


def test_the_same_run_may_resume():
    check(compatibility(run_config()))


# Values other than run_config's: of the compared data, of the compared fields, and of the fields that may change.
OTHER_DATA = {
    "tokenizer_digest": "sha256:other", "corpus_digest": "sha256:other", "route_table_digests": ["sha256:other"],
    "predictions_digest": "sha256:other",
}  # fmt: skip
OTHER = {
    "vocab_size": 99, "context_length": 64, "hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 2,
    "intermediate_size": 64, "activation": "relu", "dropout": 0.1, "position_embedding": "sinusoidal",
    "sparse_layers": [2], "num_experts": 8, "placement": "insert", "num_sublayers": 3, "global_batch_size": 64,
    "optimizer": "sgd", "lr": 0.5, "beta1": 0.5, "beta2": 0.5, "adam_epsilon": 0.5, "weight_decay": 0.5,
    "schedule": "cosine", "warmup_steps": 5, "decay_steps": 5, "precision": "bf16", "seed": 1, "eval_fraction": 0.5,
    "document_mask": True, "router": "switch", "router_aux_loss_coef": 0.2, "router_z_loss_coef": 0.1,
    "router_jitter_noise": 0.1, "capacity_factor": 1.5, "expert_choice_cap": 2,
}  # fmt: skip
FREE = {
    "train_data": "moved/train", "eval_data": "moved/valid", "route_table": ["moved/table"],
    "share_route_table": True, "max_steps": 5000, "micro_batch_size": 4, "max_grad_norm": 0.5,
    "grad_norm_scope": "shared", "activation_checkpointing": True, "ds_config": "other", "run_dir": "moved/run",
    "log_every": 1, "eval_every": 1, "eval_sequences": 5, "save_every": 1, "resume": "must", "loggers": ["csv"],
    "dry_run": True, "dry_run_world_size": 4, "ep_size": 2, "zero_stage": 2, "keep_last": 2, "keep_every": 10,
    "allow_mismatch": ["lr"], "max_nonfinite_steps": 3, "stop_on_failed_save": True, "async_save": True,
    "hang_timeout_seconds": 5.0, "loader_workers": 2, "gradient_dtype": "bf16",
}  # fmt: skip


def test_every_field_of_a_run_is_compared_or_free():
    names = {spec.name for spec in dataclasses.fields(RunConfig)}
    assert OTHER.keys() | FREE.keys() == names and not OTHER.keys() & FREE.keys()
    assert compatibility(run_config()).keys() == OTHER.keys() | OTHER_DATA.keys()


@pytest.mark.parametrize("name, value", [*OTHER.items(), *OTHER_DATA.items()])
def test_another_kind_of_run_is_refused_with_both_values(name, value):
    data, fields = ({name: value}, {}) if name in OTHER_DATA else ({}, {name: value})
    fields |= {"route_table": []} if name == "router" else {}  # a learned router has none
    stored = compatibility(run_config())
    with pytest.raises(ValueError) as error:
        check(compatibility(run_config(**fields), **data), stored=stored)
    message = str(error.value)
    assert str(CHECKPOINT) in message
    assert f"written with {name}={stored[name]} but this run has {name}={value}" in message


@pytest.mark.parametrize("name", FREE)
def test_paths_intervals_and_the_spread_over_ranks_may_change(name):
    assert FREE[name] != getattr(run_config(), name)
    check(compatibility(run_config(**{name: FREE[name]})))


def test_the_micro_batch_within_which_a_router_balances_must_stay():
    learned = {"router": "switch", "route_table": []}
    stored = compatibility(run_config(**learned))
    with pytest.raises(ValueError, match="written with micro_batch_size=16 but this run has micro_batch_size=4"):
        check(compatibility(run_config(micro_batch_size=4, **learned)), stored=stored)


@pytest.mark.parametrize("name", ["lr", "route_table_digests"])
def test_a_mismatch_may_be_allowed_field_by_field(name):
    other = {"lr": 0.5, "route_table_digests": ["sha256:other"]}
    wanted = compatibility(run_config()) | {name: other[name]}
    check(wanted, allow_mismatch=(name,))
    with pytest.raises(ValueError, match="written with seed=0 but this run has seed=1.*--allow_mismatch seed"):
        check(wanted | {"seed": 1}, allow_mismatch=(name,))


def test_only_a_compared_value_can_be_allowed_to_differ():
    wanted = compatibility(run_config())
    check_allowed_mismatches(["lr"], wanted)
    with pytest.raises(ValueError, match="allow_mismatch names 'learning_rate', which is not compared.*lr"):
        check_allowed_mismatches(["lr", "learning_rate"], wanted)


def test_a_checkpoint_that_lacks_a_compared_value_is_refused():
    with pytest.raises(ValueError, match="written with .*=None but this run has"):
        check(compatibility(run_config()), stored={"hidden_size": 128})
