"""A study refuses recipes that differ in a field that must be equal, and study files that name missing things."""

import dataclasses

import pytest

from launch.study.recipes import NETWORK_FIELDS, OWN_FIELDS, differing_fields, read_study
from tests.tiny_study import write_study
from train.config.run_config import RunConfig


@pytest.fixture
def write(tmp_path, tiny_data):
    def write(*variants, **changes):
        return write_study(tmp_path / "recipes", tiny_data, *variants, **changes)

    return write


def test_variants_may_differ_in_network_and_table(write):
    wider = {"dense": {"hidden_size": 32, "num_hidden_layers": 3}}
    study = read_study(write("dense", "balanced", recipes=wider), may_differ=[])
    assert list(study.variants) == ["dense", "balanced"] and study.tables_of("balanced") == ["balanced"]
    assert differing_fields(study) == []


@pytest.mark.parametrize(
    "field, value, found",
    [
        ("lr", 0.5, "lr=0.01 but"),
        ("max_steps", 40, "max_steps=4 but"),
        ("context_length", 8, "context_length=16 but"),
        ("global_batch_size", 4, "global_batch_size=8 but"),
        ("schedule", "cosine", "schedule=inverse_sqrt but"),
        ("precision", "bf16", "precision=fp32 but"),
        ("eval_sequences", 5, "eval_sequences=10 but"),
        ("eval_data", "elsewhere", "eval_data="),
        ("vocab_size", 400, "vocab_size=None but"),
    ],
)
def test_a_difference_elsewhere_is_refused_with_field_recipes_and_values(write, field, value, found):
    folder = write("dense", "balanced", recipes={"balanced": {field: value}})
    with pytest.raises(ValueError, match=found) as error:
        read_study(folder, may_differ=[])
    message = str(error.value)
    assert "dense.yaml" in message and f"balanced.yaml has {field}={value}" in message
    can_be_allowed = field in ("lr", "max_steps", "global_batch_size", "schedule", "precision")
    assert (f"--may_differ {field}" in message) == can_be_allowed


def test_an_allowed_difference_is_listed(write):
    study = read_study(write("dense", "balanced", recipes={"balanced": {"lr": 0.5}}), may_differ=["lr"])
    assert differing_fields(study) == ["lr"]
    with pytest.raises(ValueError, match="nearest is 'max_steps'"):
        read_study(study.folder, may_differ=["step"])
    with pytest.raises(ValueError, match="--may_differ eval_sequences: perplexities .* not comparable"):
        read_study(study.folder, may_differ=["lr", "eval_sequences"])


def test_the_field_lists_name_fields_of_a_run():
    assert NETWORK_FIELDS | OWN_FIELDS <= {spec.name for spec in dataclasses.fields(RunConfig)}


def test_a_variant_trains_after_those_whose_embeddings_it_needs(write):
    study = read_study(write("clustered", "balanced", "dense"), may_differ=[])
    assert list(study.variants) == ["dense", "clustered", "balanced"]
    assert study.needs("clustered") == ["dense"] and study.needs("balanced") == []


def test_embeddings_that_need_themselves_are_refused(write):
    tables = {"clustered": {"method": "clustered", "embeddings": "clustered"}}
    with pytest.raises(ValueError, match="clustered needs its own embeddings"):
        read_study(write("clustered", tables=tables), may_differ=[])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"baseline": "wider"}, "baseline names 'wider', which is not one of variants: balanced, dense"),
        ({"expect": [["balanced", "wider"]]}, "expect names 'wider'"),
        ({"expect": [["balanced"]]}, "not a pair"),
        ({"expect": [5]}, "expect holds 5, which is not a pair"),
        ({"expect": 5}, "expect a list of pairs"),
        ({"tables": {"balanced": "random"}}, "table 'balanced' is 'random', not a mapping"),
        ({"tables": {"balanced": {"method": "clustered", "embeddings": ["dense"]}}}, "not one of"),
        ({"tables": {"other": {}}}, "no variant has the table 'other'"),
        ({"tables": {"balanced": {"methods": "random"}}}, "table 'balanced' has 'methods', not one of"),
        ({"tables": {"balanced": {"embeddings": "dense"}}}, "method=balanced and embeddings=dense"),
        ({"tables": {"balanced": {"method": "clustered"}}}, "method=clustered and embeddings=None"),
        ({"tables": {"balanced": {"method": "clustered", "embeddings": "x"}}}, "embeddings=x, not one of"),
        ({"variants": ["dense", "absent"]}, "absent.yaml does not exist"),
        ({"varants": []}, "must hold variants and baseline"),
    ],
)
def test_a_malformed_study_file_is_refused(write, changes, message):
    with pytest.raises(ValueError, match=message):
        read_study(write("dense", "balanced", **changes), may_differ=[])


def test_runs_without_validation_are_refused(write):
    with pytest.raises(ValueError, match="no validation data"):
        read_study(write("dense", base={"eval_data": None}), may_differ=[])


@pytest.mark.parametrize("every", ["log_every", "eval_every"])
def test_checkpoints_between_two_records_are_refused(write, every):
    with pytest.raises(ValueError, match=f"save_every=3, which is not a multiple of {every}=2"):
        read_study(write("dense", base={"save_every": 3, "log_every": 1, "eval_every": 1} | {every: 2}), may_differ=[])


@pytest.mark.parametrize("field, value", [("resume", "never"), ("dry_run", True)])
def test_runs_that_could_not_resume_are_refused(write, field, value):
    with pytest.raises(ValueError, match=f"dense.yaml has {field}={value}; a study needs"):
        read_study(write("dense", base={field: value}), may_differ=[])
