"""A study trains seed by seed, skips what has finished, goes on after failures, and reports at any time."""

import json
import subprocess
import sys

import pytest

from data_prep.route_table import read_route_table
from tests.tiny_study import finish, write_study
from train.exit_codes import EXIT_STOPPED
from train.study_main import check, main, plan, train_rounds
from train.study_recipes import read_study
from train.study_runs import Stop, train_run

PERPLEXITIES = {"dense": 20.0, "balanced": 10.0, "random": 15.0, "clustered": 30.0}


class Trainer:
    """Stands for train_run: remembers what it was asked to train, and finishes it, or fails."""

    def __init__(self, *failing):
        self.trained, self.failing = [], failing

    def __call__(self, run, *, watch, say):
        self.trained.append((run.variant, run.seed))
        watch()
        if run.variant in self.failing:
            run.log.parent.mkdir(parents=True, exist_ok=True)
            run.log.write_text("the last words")
            return 3
        finish(run, perplexity=PERPLEXITIES[run.variant] + run.seed)
        return 0


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    monkeypatch.setattr("train.study_report.plot_study", lambda *_, **__: None)


@pytest.fixture
def train(tmp_path, tiny_data):
    """Train a study of all variants with a stand-in; (exit status, output folder)."""
    folder = write_study(
        tmp_path / "recipes", tiny_data, *PERPLEXITIES, expect=[["balanced", "dense"], ["clustered", "random"]]
    )

    def train(trainer, *, num_seeds=2, variants=(), stop=None):
        study, output = read_study(folder, may_differ=[]), tmp_path / "study"
        rounds = plan(study, output, num_seeds=num_seeds, variants=list(variants))
        check(study, output, rounds, num_ranks=1)
        return train_rounds(study, output, rounds, stop or Stop(), train=trainer), output

    return train


def test_seeds_are_rounds_and_finished_runs_are_left_alone(train):
    first, second = Trainer(), Trainer()
    assert train(first, num_seeds=1)[0] == 0
    assert first.trained == [(variant, 0) for variant in PERPLEXITIES]
    assert train(second, num_seeds=2)[0] == 0
    assert second.trained == [(variant, 1) for variant in PERPLEXITIES]


def test_a_failing_run_is_named_with_its_log_and_the_others_go_on(train, capfd):
    trainer = Trainer("balanced")
    status, output = train(trainer, num_seeds=1)
    out, err = capfd.readouterr()
    assert status == 1 and ("random", 0) in trainer.trained and ("clustered", 0) in trainer.trained
    assert "balanced, seed 0: failed with exit code 3" in out and "the last words" in out
    assert "error: balanced, seed 0: exit code 3" in err
    assert "**Not finished:** balanced (seed 0)" in (output / "study.md").read_text()


def test_what_needs_a_failed_run_is_named_and_not_trained(train, capfd):
    trainer = Trainer("dense")
    assert train(trainer, num_seeds=1)[0] == 1
    assert ("clustered", 0) not in trainer.trained
    assert "clustered, seed 0: its table needs dense, which has not finished" in capfd.readouterr().err


def test_some_variants_train_with_those_that_they_need(train):
    trainer = Trainer()
    assert train(trainer, num_seeds=1, variants=["clustered"])[0] == 0
    assert trainer.trained == [("dense", 0), ("clustered", 0)]


def test_a_study_that_is_stopped_trains_nothing_more_and_says_so(train):
    stop, trainer = Stop(), Trainer()

    def stop_after_first(run, **rest):
        stop.num_requests = 1
        return trainer(run, **rest)

    status, output = train(stop_after_first, stop=stop)
    assert status == EXIT_STOPPED and trainer.trained == [("dense", 0)]
    assert "1 of 4 variants" in (output / "study.md").read_text()


def test_random_tables_and_embeddings_are_drawn_anew_for_every_seed(train):
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


def test_a_table_of_other_arguments_is_not_taken(train, tmp_path):
    train(Trainer(), num_seeds=1)
    edit(tmp_path / "recipes" / "study.yaml", "method: random", "method: round_robin")
    with pytest.raises(ValueError, match="'method': 'random'.*'method': 'round_robin'"):
        train(Trainer(), num_seeds=1)


def test_a_folder_of_another_recipe_is_not_taken(train, tmp_path):
    train(Trainer(), num_seeds=1)
    edit(tmp_path / "recipes" / "base.yaml", "lr: 0.01", "lr: 0.02")
    with pytest.raises(ValueError, match="dense/seed_0 was trained with lr=0.01, but .*dense.yaml now says 0.02"):
        train(Trainer(), num_seeds=1)


def test_data_that_changed_are_refused(train, tmp_path):
    _, output = train(Trainer(), num_seeds=1)
    record = json.loads((output / "data.json").read_text())
    (output / "data.json").write_text(json.dumps(record | {"valid_corpus_digest": "other"}))
    with pytest.raises(ValueError, match="valid_corpus_digest other, but the recipes' data now have"):
        train(Trainer(), num_seeds=1)


def test_the_report_alone_trains_nothing(train, tmp_path, capsys):
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


def test_a_run_whose_process_outlived_its_study_is_waited_for(train, tmp_path, monkeypatch, capsys):
    study, said = read_study(tmp_path / "recipes", may_differ=[]), []
    run = plan(study, tmp_path / "study", num_seeds=1, variants=["dense"])[0][0]
    run.log.parent.mkdir(parents=True)
    with open(run.log, "ab") as log:  # the lock lives as long as the process has the file as its output
        hold = "import fcntl, time; fcntl.flock(1, fcntl.LOCK_EX); print('locked', flush=True); time.sleep(1.5)"
        process = subprocess.Popen([sys.executable, "-c", hold], stdout=log)
    while "locked" not in run.log.read_text():
        pass
    finish(run)
    assert train_run(run, num_ranks=1, stop=Stop(), watch=lambda: None, say=said.append) == 0
    assert process.poll() is not None or process.wait(timeout=1) == 0
    assert "a process of another study still trains it" in said[0] and "$" not in run.log.read_text()
