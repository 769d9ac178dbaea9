"""launch/train.py end to end, with each launcher: it trains, saves, resumes bit for bit, and refuses misfits."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file
from transformers import AutoTokenizer

from data_prep.shards.token_stream import TokenStream
from models.modeling_hash_gpt import HashGPTForCausalLM
from tests.distributed.ranks import free_port
from tests.processes import run_forked
from tests.tiny_run import make_tiny_data, tiny_run_fields
from train.data.batches import PackedSequences
from train.processes.project_root import ROOT

BIN = Path(sys.executable).parent

pytestmark = pytest.mark.distributed


def launch(command: list[str], *arguments) -> subprocess.CompletedProcess:
    environment = {**os.environ, "MASTER_PORT": str(free_port())}
    arguments = [str(argument) for argument in arguments]
    return subprocess.run(
        [*command, "launch/train.py", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def deepspeed(*arguments):
    return launch([str(BIN / "deepspeed"), "--num_gpus", "2", "--master_port", str(free_port())], *arguments)


def torchrun(*arguments):
    return launch([str(BIN / "torchrun"), "--nproc_per_node", "2", "--master_port", str(free_port())], *arguments)


def python(*arguments):
    """`python launch/train.py`, forked from a process that has imported the libraries."""
    return run_forked("launch/train.py", *map(str, arguments), environment=dict(os.environ))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    """Two ranks of two experts, two micro-batches per step, and dropout: all of it must survive a resume."""
    folder = tmp_path_factory.mktemp("train")
    fields = tiny_run_fields(
        make_tiny_data(folder / "data"), ep_size=2, max_steps=6, save_every=3, eval_every=3, log_every=1, dropout=0.1,
        global_batch_size=8, micro_batch_size=2, loggers=["csv", "tensorboard"],
    )  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


@pytest.fixture(scope="module")
def finished_run(recipe) -> Path:
    run_dir = recipe.parent / "run"
    result = deepspeed("--config", recipe, "--run_dir", run_dir)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return run_dir


def read_metrics(run_dir: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def newest_model(run_dir: Path) -> Path:
    return run_dir / "checkpoints" / "step_00000006"


def test_a_run_writes_metrics_plots_checkpoints_and_models(finished_run):
    assert [line["step"] for line in read_metrics(finished_run, "train")] == [1, 2, 3, 4, 5, 6]
    assert read_metrics(finished_run, "train")[0]["tokens"] == 8 * 16
    load = read_metrics(finished_run, "expert_load")[0]
    assert sum(load["observed"]) == 6 * 8 * 16 and len(load["observed"]) == 4
    for name in ("run.yaml", "plots/loss.png", "plots/expert_load.png", "checkpoints/step_00000003/manifest.json"):
        assert (finished_run / name).is_file(), name
    assert list((finished_run / "monitor").rglob("*validation_perplexity*.csv"))
    assert list((finished_run / "monitor").rglob("events.out.tfevents.*"))


def test_the_exported_model_has_the_validation_loss_of_the_run(finished_run, recipe):
    fields = yaml.safe_load(recipe.read_text())
    model = HashGPTForCausalLM.from_pretrained(newest_model(finished_run)).eval()
    sequences = PackedSequences([TokenStream(fields["eval_data"])], context_length=fields["context_length"])
    batch = sequences.batch(sequences.first(fields["eval_sequences"]))  # 10: the last batch is padded
    with torch.no_grad():
        logits = model(batch.input_ids).logits
    loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()).item()
    assert loss == pytest.approx(read_metrics(finished_run, "validation")[-1]["loss"], abs=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(newest_model(finished_run), trust_remote_code=False)
    assert tokenizer.eos_token == "<|endoftext|>"


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(finished_run, recipe, tmp_path):
    run_dir = tmp_path / "resumed"
    shutil.copytree(finished_run, run_dir)
    shutil.rmtree(run_dir / "checkpoints" / "step_00000006")
    (run_dir / "metrics.jsonl").unlink()
    result = torchrun("--config", recipe, "--run_dir", run_dir, "--resume")
    assert result.returncode == 0, result.stderr[-3000:]
    resumed, uninterrupted = (read_metrics(folder, "train") for folder in (run_dir, finished_run))
    assert [line["loss"] for line in resumed] == [line["loss"] for line in uninterrupted[3:]]
    assert read_metrics(run_dir, "validation") == read_metrics(finished_run, "validation")  # that of step 3 was gone
    for file in newest_model(finished_run).glob("*.safetensors"):
        expected, found = load_file(file), load_file(newest_model(run_dir) / file.name)
        assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.slow
def test_a_run_stopped_before_its_last_validation_runs_it_on_resuming(finished_run, recipe, tmp_path):
    run_dir = shutil.copytree(finished_run, tmp_path / "run")
    lines = (run_dir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run_dir / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["kind"] != "validation"))
    result = deepspeed("--config", recipe, "--run_dir", run_dir)
    assert result.returncode == 0, result.stderr[-3000:]
    assert read_metrics(run_dir, "validation") == read_metrics(finished_run, "validation")[-1:]
    assert read_metrics(run_dir, "train") == read_metrics(finished_run, "train")


@pytest.mark.parametrize(
    "override, message",
    [
        (["--lr", "0.5"], "written with lr=0.01 but this run has lr=0.5"),
        (["--resume", "never"], "holds a run and resume=never"),
        (["--num_expert", "4"], "sets 'num_expert', which is not a field of a run; the nearest is 'num_experts'"),
        (["--ep_size", "3"], "4 experts cannot be split evenly over ep_size=3"),
        (["--global_batch_size", "6"], "global_batch_size=6 is not a multiple of micro_batch_size=2 * 2 ranks = 4"),
    ],
)
def test_a_misfit_is_refused_in_one_line(finished_run, recipe, override, message, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)  # refused before rank 0 waits for rank 1
    result = python("--config", recipe, "--run_dir", finished_run, "--resume", *override)
    assert result.returncode == 2
    assert message in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_two_hosts_of_a_hostfile_train_together(recipe, tmp_path):
    (tmp_path / "hostfile").write_text("localhost slots=1\n127.0.0.1 slots=1\n")
    port = str(free_port())
    command = [str(BIN / "deepspeed"), "--hostfile", tmp_path / "hostfile", "--no_ssh", "--master_addr", "127.0.0.1"]
    command += ["--master_port", port, "launch/train.py", "--config", recipe, "--run_dir", tmp_path / "run"]
    hosts = [
        subprocess.Popen([str(word) for word in [*command[:4], "--node_rank", node, *command[4:]]], cwd=ROOT)
        for node in (0, 1)
    ]
    assert [host.wait() for host in hosts] == [0, 0]
    assert len(read_metrics(tmp_path / "run", "train")) == 6


@pytest.mark.slow
def test_ranks_of_mpi_train_together(recipe, finished_run, tmp_path):
    result = launch([str(BIN / "mpirun"), "-n", "2", sys.executable], "--config", recipe, "--run_dir", tmp_path / "run")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert [line["loss"] for line in read_metrics(tmp_path / "run", "train")] == [
        line["loss"] for line in read_metrics(finished_run, "train")
    ]


def test_one_process_trains_without_a_launcher(recipe, tmp_path):
    result = python(
        "--config", recipe, "--run_dir", tmp_path / "run", "--ep_size", 1, "--precision", "bf16", "--max_steps", 2,
        "--activation_checkpointing",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    weights = load_file(tmp_path / "run" / "checkpoints" / "step_00000002" / "model-experts-00001.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}


LEARNED = {
    "switch": ["--capacity_factor", 1.25, "--router_jitter_noise", 0.01, "--router_z_loss_coef", 0.001],
    "token_switch": ["--zero_stage", 3],
    "gshard": ["--capacity_factor", 1, "--activation_checkpointing"],
    "base": ["--placement", "insert", "--num_sublayers", 2, "--grad_norm_scope", "shared"],
    "expert_choice": ["--expert_choice_cap", 2, "--precision", "bf16"],
}


def test_a_learned_router_trains_without_a_table_and_logs_its_routing(recipe, tmp_path):
    options = [
        "--ep_size",
        1,
        "--max_steps",
        4,
        "--eval_every",
        2,
        "--loggers",
        "--router",
        "switch",
        *LEARNED["switch"],
    ]
    result = python("--config", recipe, "--run_dir", tmp_path / "run", "--route_table", "none", *options)
    assert result.returncode == 0, result.stderr[-3000:]
    last = read_metrics(tmp_path / "run", "train")[-1]
    assert 0 < last["dropped_share"] < 0.5 and 0 < last["auxiliary_loss"] < 1
    assert 0 < last["routing_entropy"] <= math.log(4) and last["predicted_imbalance"] is None
    fluctuations = [line["routing_fluctuation"] for line in read_metrics(tmp_path / "run", "validation")]
    assert fluctuations[0] is None and 0 < fluctuations[1] < 1
    assert (tmp_path / "run" / "plots" / "routing.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("router", LEARNED)
def test_every_learned_router_resumes_bit_for_bit_and_on_other_ranks(recipe, router, tmp_path):
    options = ["--config", recipe, "--route_table", "none", "--router", router, *LEARNED[router]]
    whole = deepspeed(*options, "--run_dir", tmp_path / "run")
    assert whole.returncode == 0, whole.stderr[-3000:]
    losses = [line["loss"] for line in read_metrics(tmp_path / "run", "train")]
    shutil.rmtree(newest_model(tmp_path / "run"))
    alone = [*options, "--ep_size", 1, "--run_dir", shutil.copytree(tmp_path / "run", tmp_path / "alone")]
    for run_dir, result in (("run", deepspeed(*options, "--run_dir", tmp_path / "run")), ("alone", python(*alone))):
        assert result.returncode == 0, result.stderr[-3000:]
        resumed = [line["loss"] for line in read_metrics(tmp_path / run_dir, "train")][6:]
        assert resumed == (losses[3:] if run_dir == "run" else pytest.approx(losses[3:], rel=0.02))
    _, last, again = read_metrics(tmp_path / "run", "validation")
    assert again == last and last["routing_fluctuation"] is not None
    loaded = HashGPTForCausalLM.from_pretrained(newest_model(tmp_path / "alone"))
    assert loaded.config.router == router


def test_a_dry_run_prints_sizes_and_writes_nothing(recipe, tmp_path):
    result = python("--config", recipe, "--run_dir", tmp_path / "run", "--dry_run", "--dry_run_world_size", 4)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "world of 4" in result.stdout
    assert "per expert" in result.stdout and "Predicted imbalance" in result.stdout
    assert not (tmp_path / "run").exists()
