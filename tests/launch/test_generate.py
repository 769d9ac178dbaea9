"""Text from a saved model, by command line and without the code that was saved beside the model."""

import shutil
import subprocess
import sys

import pytest
import torch

from data_prep.train_tokenizer import save_tokenizer, train_tokenizer
from launch.generate import find_model, main
from models.configuration_hash_gpt import HashGPTConfig
from models.modeling_hash_gpt import HashGPTForCausalLM
from train.processes.project_root import ROOT

VOCAB_SIZE = 260


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """The folder of a run that saved one untrained model with 3 experts and a context of 16 tokens."""
    folder = tmp_path_factory.mktemp("run")
    step = folder / "checkpoints" / "step_00000007"
    save_tokenizer(train_tokenizer(["the cat sat on the mat"], vocab_size=VOCAB_SIZE), step)
    torch.manual_seed(0)
    config = HashGPTConfig(
        vocab_size=VOCAB_SIZE, max_position_embeddings=16, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        sparse_layers=[1], num_experts=3, bos_token_id=0, eos_token_id=0, initializer_range=1.0,
    )  # fmt: skip
    model = HashGPTForCausalLM(config)
    model.set_route_tables((torch.arange(VOCAB_SIZE) % 3).view(1, VOCAB_SIZE, 1))
    model.save_pretrained(step)
    return folder


@pytest.fixture
def write_text(run_dir, capsys):
    def write(*options):
        capsys.readouterr()
        status = main([str(run_dir), "--max_new_tokens", "8", *options])
        captured = capsys.readouterr()
        assert status == 0, captured.err
        return captured.out

    return write


def test_the_text_begins_with_the_prompt(write_text):
    assert write_text("--prompt", "the cat").startswith("the cat")


def test_a_prompt_may_come_from_a_file(write_text, tmp_path):
    (tmp_path / "prompt.txt").write_text("the dog")
    assert write_text("--prompt_file", str(tmp_path / "prompt.txt")).startswith("the dog")


def test_the_seed_decides_the_text(write_text):
    assert write_text("--seed", "1") == write_text("--seed", "1") != write_text("--seed", "2")


def test_greedy_text_does_not_depend_on_the_seed(write_text):
    assert write_text("--greedy", "--seed", "1") == write_text("--greedy", "--seed", "2")


@pytest.mark.parametrize("options", [[], ["--num_beams", "3"]], ids=["sampled", "from beams"])
def test_samples_are_separated_by_a_rule(write_text, options):
    assert len(write_text("--num_samples", "3", *options).split("\n---\n")) == 3


def test_the_code_beside_the_weights_never_runs(run_dir, tmp_path):
    copied = shutil.copytree(run_dir / "checkpoints" / "step_00000007", tmp_path / "model")
    for code in copied.glob("*.py"):
        code.write_text("raise RuntimeError('this code was run')")
    assert main([str(copied), "--max_new_tokens", "2"]) == 0


def test_a_run_folder_stands_for_its_newest_complete_model(tmp_path):
    for step in ("step_00000009", "step_00000010", "step_00000011.partial"):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
        (tmp_path / "checkpoints" / step / "config.json").touch()
    (tmp_path / "checkpoints" / "step_00000012").mkdir()
    assert find_model(str(tmp_path)).name == "step_00000010"


@pytest.mark.parametrize(
    "options, message",
    [
        (["--max_new_tokens", "16"], "1 tokens and --max_new_tokens 16 exceed the model's context of 16"),
        (["--greedy", "--num_samples", "2"], "--num_samples 2 texts cannot differ"),
        (["--temperature", "0"], "--greedy selects the likeliest token"),
        (["--top_p", "1.5"], "--top_p 1.5"),
        (["--num_beams", "0"], "--num_beams 0 must be at least 1"),
        (["--prompt_file", "nowhere.txt"], "nowhere.txt"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_an_error_takes_one_line(run_dir, capsys, options, message):
    assert main([str(run_dir), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_folder_without_a_model_is_named(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert f"{tmp_path} holds no model" in capsys.readouterr().err


def test_a_model_without_a_tokenizer_is_named(tmp_path, capsys):
    HashGPTForCausalLM(
        HashGPTConfig(vocab_size=5, hidden_size=4, num_attention_heads=2, num_hidden_layers=1)
    ).save_pretrained(tmp_path)
    assert main([str(tmp_path)]) == 2
    assert f"{tmp_path} holds a model but no tokenizer" in capsys.readouterr().err


def test_the_script_runs_from_any_folder(tmp_path):
    script = [sys.executable, str(ROOT / "launch" / "generate.py"), str(tmp_path / "missing")]
    finished = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)
    assert (finished.returncode, "missing holds no model" in finished.stderr) == (2, True), finished.stderr
