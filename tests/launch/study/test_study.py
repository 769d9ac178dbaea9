"""The study's recipes can be compared, and a killed and resumed study ends like an uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.study.recipes import read_study
from models.parameter_count import count_parameters
from tests.tiny_run import make_tiny_data
from tests.tiny_study import write_study
from train.data.layer_tables import LayerTable
from train.engine.network import network_config
from train.processes.project_root import ROOT

RECIPES = ROOT / "launch" / "recipes" / "study"
TIMES = ("tokens_per_second", "seconds")  # nothing else in study.json may depend on kills


def num_parameters(config) -> int:
    tables = [LayerTable("token", 0, 1, {}, None)] * len(config.sparse_layers)
    return count_parameters(network_config(config, vocab_size=8008, end_token_id=0, layer_tables=tables)).total


def test_the_recipes_of_the_study_can_be_compared():
    study = read_study(RECIPES, may_differ=[])
    assert study.baseline == "dense" and len(study.expect) > 10
    for variant, config in study.variants.items():
        routes_by_table = bool(config.sparse_layers) and getattr(config, "router", "hash") == "hash"
        assert routes_by_table == bool(study.tables_of(variant))


@pytest.mark.parametrize("variant", ["wider", "deeper"])
def test_large_dense_variants_have_the_parameters_of_the_hash_layers(variant):
    variants = read_study(RECIPES, may_differ=[]).variants
    assert num_parameters(variants[variant]) == pytest.approx(num_parameters(variants["balanced"]), rel=0.02)


class StudyProcess:
    """The command, started as by a user."""

    def __init__(self, recipes: Path, output: Path):
        self.output = output
        command = [sys.executable, "-m", "launch.study", str(recipes), "--output", str(output), "--seeds", "2"]
        self.log = open(output.with_suffix(".out"), "ab")
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=self.log, stderr=subprocess.STDOUT)

    def wait_for_step(self, run: str, step: int) -> None:
        metrics = self.output / run / "metrics.jsonl"
        while not metrics.exists() or f'"step": {step},' not in metrics.read_text():
            assert self.process.poll() is None, self.output_text
            time.sleep(0.02)

    @property
    def runs(self) -> list[int]:
        """The processes that the study has started."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children]

    def wait_for_line(self, text: str) -> None:
        while text not in self.output_text:
            assert self.process.poll() is None, self.output_text
            time.sleep(0.02)

    @property
    def output_text(self) -> str:
        return self.output.with_suffix(".out").read_text()


def kill(*processes: int) -> None:
    for process in processes:
        os.kill(process, signal.SIGKILL)


def results(output: Path) -> dict:
    content = json.loads((output / "study.json").read_text())
    content["runs"] = [{name: value for name, value in run.items() if name not in TIMES} for run in content["runs"]]
    return content


@pytest.mark.slow
@pytest.mark.distributed
def test_a_killed_and_restarted_study_gives_the_same_table(tmp_path):
    base = {"max_steps": 120, "save_every": 20, "log_every": 10, "eval_every": 20, "keep_last": 1, "dropout": 0.1}
    recipes = write_study(
        tmp_path / "recipes", make_tiny_data(tmp_path / "data"), "dense", "clustered", "switch", base=base,
        expect=[["clustered", "dense"]],
    )  # fmt: skip
    untouched = StudyProcess(recipes, tmp_path / "untouched")
    assert untouched.process.wait() == 0, untouched.output_text

    killed = StudyProcess(recipes, tmp_path / "killed")
    killed.wait_for_step("switch/seed_0", 70)
    kill(*killed.runs, killed.process.pid)
    killed.process.wait()

    orphaned = StudyProcess(recipes, tmp_path / "killed")
    orphaned.wait_for_step("switch/seed_0", 90)
    (run,) = orphaned.runs
    os.kill(run, signal.SIGSTOP)  # so that it still exists when the next study starts
    kill(orphaned.process.pid)
    orphaned.process.wait()

    stopped = StudyProcess(recipes, tmp_path / "killed")
    stopped.wait_for_line("a process of another study is still training it")
    os.kill(run, signal.SIGCONT)
    stopped.wait_for_step("dense/seed_1", 50)
    stopped.process.send_signal(signal.SIGINT)
    assert stopped.process.wait() == 75, stopped.output_text
    assert "the same command resumes the study" in stopped.output_text

    finished = StudyProcess(recipes, tmp_path / "killed")
    assert finished.process.wait() == 0, finished.output_text
    assert results(tmp_path / "killed") == results(tmp_path / "untouched")
