"""A study trains seed by seed, skips finished runs, continues after failures, and reports at any time."""

import json
import shutil
from dataclasses import replace

import pytest
from safetensors.numpy import load_file, save_file

from data_prep.counts.counts_file import read_counts, write_counts
from data_prep.tables.route_table_file import read_route_table
from launch.study.main import check, main, prepare, train_rounds
from launch.study.process import Stop
from launch.study.recipes import read_study
from launch.study.runs import runs_by_seed
from launch.study.shared import shared_facts
from tests.tiny_study import finish, write_study
from train.checkpoint.files.manifest import manifest_bytes, read_manifest
from train.inputs import open_inputs
from train.processes.exit_codes import EXIT_STOPPED

PERPLEXITIES = {"dense": 20.0, "balanced": 10.0, "random": 15.0, "clustered": 30.0}


class Trainer:
    """A stand-in for train_run: records the runs that it is called with, and finishes them or fails."""

    def __init__(self, *failing):
        self.trained, self.failing = [], failing

    def __call__(self, run, *, watch, print_line):
        self.trained.append((run.variant, run.seed))
        watch()
        if run.variant in self.failing:
            run.log.parent.mkdir(parents=True, exist_ok=True)
            run.log.write_text("the last words")
            return 3
        compatibility = open_inputs(run.config).resume_compatibility(run.config)
        finish(run, perplexity=PERPLEXITIES[run.variant] + run.seed, compatibility=compatibility)
        return 0


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    monkeypatch.setattr("launch.study.report.plot_study", lambda *_, **__: None)


@pytest.fixture
def train(tmp_path, tiny_data):
    """Train a study of all variants with a stand-in; returns exit status and output folder."""
    folder = write_study(
        tmp_path / "recipes", tiny_data, *PERPLEXITIES, expect=[["balanced", "dense"], ["clustered", "random"]]
    )

    def train(trainer, *, num_seeds=2, variants=(), stop=None):
        study, output = read_study(folder, may_differ=[]), tmp_path / "study"
        rounds = runs_by_seed(study, output, num_seeds=num_seeds, variants=list(variants))
        prepare(study, output, rounds, num_ranks=1)
        return train_rounds(study, output, rounds, stop or Stop(), train=trainer), output

    return train


def test_seeds_are_rounds_and_finished_runs_are_skipped(train):
    first, second = Trainer(), Trainer()
    assert train(first, num_seeds=1)[0] == 0
    assert first.trained == [(variant, 0) for variant in PERPLEXITIES]
    assert train(second, num_seeds=2)[0] == 0
    assert second.trained == [(variant, 1) for variant in PERPLEXITIES]


def test_a_failing_run_is_named_with_its_log_and_the_others_continue(train, capfd):
    trainer = Trainer("balanced")
    status, output = train(trainer, num_seeds=1)
    out, err = capfd.readouterr()
    assert status == 1 and ("random", 0) in trainer.trained and ("clustered", 0) in trainer.trained
    assert "balanced, seed 0: failed with exit code 3" in out and "the last words" in out
    assert "error: balanced, seed 0: exit code 3" in err
    assert "**Not finished:** balanced (seed 0)" in (output / "study.md").read_text()


def test_a_run_that_needs_a_failed_one_is_named_and_not_trained(train, capfd):
    trainer = Trainer("dense")
    assert train(trainer, num_seeds=1)[0] == 1
    assert ("clustered", 0) not in trainer.trained
    assert "clustered, seed 0: its table needs dense, which has not finished" in capfd.readouterr().err


def test_chosen_variants_train_with_those_that_they_need(train):
    trainer = Trainer()
    assert train(trainer, num_seeds=1, variants=["clustered"])[0] == 0
    assert trainer.trained == [("dense", 0), ("clustered", 0)]


def test_a_stopped_study_trains_nothing_more_and_reports_the_stop(train):
    stop, trainer = Stop(), Trainer()

    def stop_after_first(run, **rest):
        stop.is_requested = True
        return trainer(run, **rest)

    status, output = train(stop_after_first, stop=stop)
    assert status == EXIT_STOPPED and trainer.trained == [("dense", 0)]
    assert "1 of 4 variants" in (output / "study.md").read_text()


def test_random_tables_and_embeddings_are_drawn_for_every_seed(train):
    _, output = train(Trainer())
    tables = {
        name: [read_route_table(output / f"tables/seed_{seed}/{name}.safetensors").tables for seed in (0, 1)]
        for name in ("random", "clustered", "balanced")
    }
    assert all((tables[name][0] != tables[name][1]).any() for name in ("random", "clustered"))
    assert (tables["balanced"][0] == tables["balanced"][1]).all()  # decided by the counts alone


def edit(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_table_with_other_arguments_is_refused(train, tmp_path):
    train(Trainer(), num_seeds=1)
    edit(tmp_path / "recipes" / "study.yaml", "method: random", "method: round_robin")
    with pytest.raises(ValueError, match="was built with method=random, but this study has method=round_robin"):
        train(Trainer(), num_seeds=1)


def test_a_folder_of_another_recipe_is_refused(train, tmp_path):
    train(Trainer(), num_seeds=1)
    edit(tmp_path / "recipes" / "base.yaml", "lr: 0.01", "lr: 0.02")
    for variants in ([], ["balanced"]):  # dense could not be in the report
        with pytest.raises(ValueError, match="dense/seed_0 was trained with lr=0.01, but .*dense.yaml now has 0.02"):
            train(Trainer(), num_seeds=1, variants=variants)


@pytest.mark.parametrize("name, value", [("eval_corpus_digest", "other"), ("ranks", 2)])
def test_changed_data_or_ranks_are_refused(train, name, value):
    _, output = train(Trainer(), num_seeds=1)
    shared = json.loads((output / "shared.json").read_text())
    (output / "shared.json").write_text(json.dumps(shared | {name: value}))
    with pytest.raises(ValueError, match=f"{name} {value}, but it is .* now"):
        train(Trainer(), num_seeds=1)


def test_the_same_embeddings_give_the_same_table_whatever_ranks_saved_them(train):
    _, output = train(Trainer(), num_seeds=1)
    shutil.rmtree(output / "dense")

    class TwoRanks(Trainer):
        def __call__(self, run, **rest):
            code, manifest = super().__call__(run, **rest), read_manifest(run.model)
            [[size, _]] = manifest["files"]["model.safetensors"]
            manifest["files"]["model.safetensors"] = [[size // 2, "of rank 0"], [size - size // 2, "of rank 1"]]
            (run.model / "manifest.json").write_bytes(manifest_bytes(manifest))
            return code

    assert train(TwoRanks(), num_seeds=1) == (0, output)


def test_a_table_from_other_embeddings_and_its_runs_are_refused(train):
    _, output = train(Trainer(), num_seeds=1)
    shutil.rmtree(output / "dense")
    assert train(Trainer(), num_seeds=1) == (0, output)  # the same model again

    class Other(Trainer):
        def __call__(self, run, **rest):
            code = super().__call__(run, **rest)
            weights = load_file(run.model / "model.safetensors")
            save_file({name: values[::-1].copy() for name, values in weights.items()}, run.model / "model.safetensors")
            return code

    shutil.rmtree(output / "dense")
    assert train(Other(), num_seeds=1)[0] == 1  # the table was built from other embeddings
    with pytest.raises(ValueError, match="clustered.safetensors was built with embeddings_digest="):
        train(Trainer(), num_seeds=1)
    for path in (output / "tables" / "seed_0").glob("clustered.*"):
        path.unlink()
    with pytest.raises(ValueError, match="clustered/seed_0.*was written with route_table_digests"):
        train(Trainer(), num_seeds=1)


def test_counts_of_another_corpus_are_rebuilt(train, tmp_path):
    _, output = train(Trainer(), num_seeds=1)
    path = output / "counts" / "token.safetensors"
    before = path.read_bytes()
    write_counts(path, replace(read_counts(path), corpus_digest="sha256:other"))
    for table in (output / "tables" / "seed_0").glob("random.*"):
        table.unlink()
    train(Trainer(), num_seeds=1)
    assert path.read_bytes() == before


def test_a_study_may_move(train, tmp_path, capsys):
    _, output = train(Trainer(), num_seeds=1)
    output.rename(tmp_path / "moved")
    assert main([str(tmp_path / "recipes"), "--output", str(tmp_path / "moved"), "--seeds", "1"]) == 0
    assert "4 of 4 variants" in capsys.readouterr().out


def test_report_only_trains_nothing(train, tmp_path, capsys):
    output = tmp_path / "study"
    arguments = [str(tmp_path / "recipes"), "--output", str(output), "--report_only"]
    assert main(arguments) == 0 and "no run" in capsys.readouterr().out
    train(Trainer(), num_seeds=1)
    (output / "study.md").unlink()
    assert main(arguments) == 0
    assert "balanced < dense" in capsys.readouterr().out and (output / "study.md").is_file()


def test_ranks_that_do_not_fit_are_refused_before_anything_runs(train, tmp_path, capsys):
    assert main([str(tmp_path / "recipes"), "--output", str(tmp_path / "study"), "--ranks", "3"]) == 2
    assert "3 ranks" in capsys.readouterr().err
    assert main([str(tmp_path / "recipes"), "--output", str(tmp_path / "study"), "--ranks", "0"]) == 2
    assert "--ranks 0 must be at least 1" in capsys.readouterr().err
    assert not (tmp_path / "study" / "shared.json").exists()  # nothing has started


def test_the_check_writes_nothing(tmp_path, tiny_data):
    study, output = read_study(write_study(tmp_path / "recipes", tiny_data, "dense"), may_differ=[]), tmp_path / "study"
    rounds = runs_by_seed(study, output, num_seeds=1, variants=[])
    check(study, output, rounds, shared_facts(study.config, num_ranks=1), num_ranks=1)
    assert not output.exists()
