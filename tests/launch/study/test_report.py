"""The report of a study: means, spreads, paired differences, orderings, and missing runs."""

import json

import pytest
from PIL import Image

from launch.study.plots import mean_curve, near_middle
from launch.study.recipes import read_study
from launch.study.report import write_report
from launch.study.results import read_result
from launch.study.runs import study_run
from tests.tiny_study import finish, validation_line, write_study


@pytest.fixture
def study(tmp_path, tiny_data):
    pairs = [["balanced", "dense"], ["dense", "random"]]
    folder = write_study(tmp_path / "recipes", tiny_data, "dense", "balanced", "random", expect=pairs)
    return read_study(folder, may_differ=[])


@pytest.fixture
def run_of(study, tmp_path):
    return lambda variant, seed: study_run(study, variant, tmp_path / "study", seed=seed)


def cells(text, variant):
    line = next(line for line in text.splitlines() if line.startswith(f"| {variant} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_means_spreads_and_paired_differences(study, run_of, tmp_path):
    for seed, (dense, balanced) in enumerate([(20.0, 10.0), (24.0, 12.0)]):
        finish(run_of("dense", seed), perplexity=dense)
        finish(run_of("balanced", seed), perplexity=balanced, imbalance=1.25)
    text = write_report(study, tmp_path / "study")
    # 11 ± 1.414, less than the dense one by 10 and 12
    assert cells(text, "balanced")[2:5] == ["11.000 ± 1.414", "2", "11.000 ± 1.414"]
    assert cells(text, "balanced")[5:] == ["128", "1.25", "-", "-"]
    assert cells(text, "dense")[2:5] == ["22.000 ± 2.828", "2", "-"]
    assert text.index("| balanced |") < text.index("| dense |")
    assert "**Not finished:** random (seed 0, 1)" in text and "2 of 3 variants, 2 seeds" in text
    assert "4 steps, 512 tokens, 1 rank; validation on 160 tokens" in text
    assert "budget and optimizer are equal." in text
    assert "not measured" in text


def test_a_single_seed_is_reported_as_such(study, run_of, tmp_path):
    finish(run_of("dense", 0), perplexity=20.0)
    finish(run_of("balanced", 0), perplexity=10.0)
    text = write_report(study, tmp_path / "study")
    assert "One seed: the spread is unknown" in text and "appears (one seed: the spread is unknown)" in text
    assert cells(text, "balanced")[2] == "10.000"


def test_a_diverged_run_is_named_and_in_no_mean(study, run_of, tmp_path):
    finish(run_of("dense", 0), perplexity=20.0)
    finish(run_of("dense", 1), perplexity=None)
    finish(run_of("balanced", 1))
    text = write_report(study, tmp_path / "study")
    assert cells(text, "dense")[2:4] == ["20.000", "1"]
    assert "**Diverged**, and excluded from every mean: dense, seed 1." in text
    assert "**Not finished:** balanced (seed 0); random (seed 0, 1)." in text


def test_fields_that_may_differ_are_not_called_equal(tmp_path, tiny_data):
    folder = write_study(tmp_path / "recipes", tiny_data, "dense", "balanced", recipes={"balanced": {"max_steps": 6}})
    study = read_study(folder, may_differ=["max_steps"])
    for variant in study.variants:
        finish(study_run(study, variant, tmp_path / "study", seed=0))
    text = write_report(study, tmp_path / "study")
    assert "4 to 6 steps, 512 to 768 tokens" in text and "are equal, except as named below." in text
    assert "**Allowed to differ:** max_steps (dense: 4; balanced: 6)." in text


def test_curves_are_means_over_seeds_and_distant_variants_do_not_squeeze_the_others(run_of):
    for variant, seed, perplexity in [
        ("dense", 0, 20.0),
        ("dense", 1, 30.0),
        ("balanced", 0, 24.0),
        ("random", 0, 2.0),
    ]:
        finish(run_of(variant, seed), perplexity=perplexity)
    dense = [read_result(run_of("dense", seed)) for seed in (0, 1)]
    assert mean_curve(dense) == ([2, 4], [20.0, 25.0])
    balanced, oracle = ([read_result(run_of(variant, 0))] for variant in ("balanced", "random"))
    assert near_middle([oracle, balanced, dense]) == [balanced, dense]


def test_the_files_hold_every_run_and_a_figure(study, run_of, tmp_path):
    finish(run_of("balanced", 0), dropped_share=0.25, routing_entropy=1.5)
    write_report(study, tmp_path / "study")
    content = json.loads((tmp_path / "study" / "study.json").read_text())
    (run,) = content["runs"]
    assert (run["variant"], run["seed"], run["dropped_share"], run["routing_entropy"]) == ("balanced", 0, 0.25, 1.5)
    assert run["routing_fluctuation"] is None and run["curve"] == [[2, 20.0], [4, 10.0]]
    assert run["has_causal_routes"] is True
    assert run["parameters_total"] > run["parameters_active"] > 0
    assert run["seconds"] == 4.0  # 512 tokens at 128 per second
    with Image.open(tmp_path / "study" / "study.png") as image:
        assert image.size[0] == 1650


@pytest.mark.parametrize("missing", ["last checkpoint", "last validation"])
def test_an_unfinished_run_is_not_reported(study, run_of, tmp_path, missing):
    run = run_of("dense", 0)
    finish(run)
    if missing == "last checkpoint":
        run.model.rename(run.model.with_name("step_00000002"))
    else:
        run.metrics.write_text("".join(run.metrics.read_text().splitlines(keepends=True)[:-1]))
    assert write_report(study, tmp_path / "study") is None


def test_imbalance_is_the_mean_of_the_second_half(run_of):
    run = run_of("balanced", 0)
    finish(run)
    points = [{"kind": "train", "step": step, "tokens_per_second": 1.0, "imbalance": load} for step, load in
              [(1, 9.0), (2, 9.0), (3, 1.0), (4, 2.0)]]  # fmt: skip
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in [*points, validation_line(4, 10.0)]))
    assert read_result(run).imbalance == 1.5


def test_fluctuation_is_the_mean_of_the_later_validations(study, run_of, tmp_path):
    run = run_of("balanced", 0)
    finish(run)
    train = {"kind": "train", "step": 4, "tokens_per_second": 1.0}
    validations = [validation_line(step, 10.0) | {"routing_fluctuation": share} for step, share in
             [(1, None), (2, 0.9), (3, 0.25), (4, 0.5)]]  # fmt: skip
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in [*validations, train]))
    assert read_result(run).routing_fluctuation == 0.375
    assert cells(write_report(study, tmp_path / "study"), "balanced")[8] == "37.5%"


@pytest.mark.parametrize("fields", [{"hash_keys": ["next"]}, {"router": "expert_choice", "hash_keys": []}])
def test_variants_that_are_not_causal_are_marked(study, run_of, tmp_path, fields):
    for variant in ("dense", "balanced", "random"):
        finish(run_of(variant, 0))
    config = run_of("balanced", 0).model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))
    text = write_report(study, tmp_path / "study")
    assert cells(text, "balanced †") and cells(text, "random") and cells(text, "dense")
    assert "† not causal: routes depend on the tokens to be predicted" in text


def test_runs_validated_on_other_tokens_are_not_compared(study, run_of, tmp_path):
    finish(run_of("dense", 0))
    finish(run_of("balanced", 0))
    metrics = run_of("balanced", 0).metrics
    metrics.write_text(metrics.read_text().replace('"num_tokens": 160', '"num_tokens": 80'))
    with pytest.raises(ValueError, match="dense, seed 0 has num_validation_tokens=160 but balanced, seed 0 has 80"):
        write_report(study, tmp_path / "study")


def test_a_run_of_another_recipe_is_not_reported(study, run_of, tmp_path):
    finish(run_of("dense", 0))
    base = study.folder / "base.yaml"
    base.write_text(base.read_text().replace("lr: 0.01", "lr: 0.02"))
    with pytest.raises(ValueError, match="was trained with lr=0.01, but .* now has 0.02"):
        write_report(read_study(study.folder, may_differ=[]), tmp_path / "study")
