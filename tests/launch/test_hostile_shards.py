"""Token shards from a stranger plant neither code nor other people's files in a checkpoint."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import xxhash
import yaml

from data_prep.shards.manifest import read_manifest, write_manifest
from data_prep.shards.tokenizer_files import TokenizerFile
from tests.processes import run_forked
from tests.tiny_run import TinyData, make_tiny_data, tiny_run_fields
from train.main import main
from train.processes.exit_codes import EXIT_BAD_INPUT
from train.processes.project_root import ROOT

pytestmark = pytest.mark.distributed


@pytest.fixture
def data(tmp_path) -> TinyData:
    return make_tiny_data(tmp_path / "data")


def recipe(data: TinyData, run_dir: Path) -> Path:
    fields = tiny_run_fields(data, max_steps=1, save_every=0, eval_every=0, run_dir=str(run_dir), ep_size=1)
    path = run_dir.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(fields))
    return path


def forge_manifest(data: TinyData) -> None:
    """Describe the tokenizer's files as they are now, as an attacker would."""
    folder = data.train / "tokenizer"
    contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    files = [TokenizerFile(name, len(text), xxhash.xxh3_128_hexdigest(text)) for name, text in contents.items()]
    write_manifest(data.train, replace(read_manifest(data.train), tokenizer_files=tuple(files)))


def test_a_planted_modelling_file_ends_the_run_before_it_begins(data, tmp_path, capsys):
    planted = data.train / "tokenizer" / "modeling_hash_gpt.py"
    planted.write_text("open('pwned', 'w')")
    assert main(["--config", str(recipe(data, tmp_path / "run"))]) == EXIT_BAD_INPUT
    assert f"{planted} is not one of the tokenizer's files" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_link_to_a_file_elsewhere_ends_the_run_before_it_begins(data, tmp_path, capsys):
    (tmp_path / "id_rsa").write_text("secret")
    for name, message in (("notes.txt", "is not one of"), ("merges.txt", "is not one of")):
        link = data.train / "tokenizer" / name
        link.symlink_to(tmp_path / "id_rsa")
        assert main(["--config", str(recipe(data, tmp_path / "run"))]) == EXIT_BAD_INPUT
        assert f"{link} {message}" in capsys.readouterr().err
        link.unlink()


def test_a_tokenizer_that_names_code_leaves_a_checkpoint_that_runs_none(data, tmp_path):
    settings_path = data.train / "tokenizer" / "tokenizer_config.json"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "tok.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')\nclass Tok: pass\n")
    settings = json.loads(settings_path.read_text())
    settings["auto_map"] = {"AutoTokenizer": [f"{tmp_path / 'code'}--tok.Tok", None]}
    settings_path.write_text(json.dumps(settings))
    forge_manifest(data)
    config = recipe(data, tmp_path / "run")
    result = run_forked("launch/train.py", "--config", str(config), environment=dict(os.environ))
    assert result.returncode == 0, result.stderr[-3000:]
    checkpoint = tmp_path / "run" / "checkpoints" / "step_00000001"
    assert "auto_map" not in json.loads((checkpoint / "tokenizer_config.json").read_text())
    # As docs/export.md opens it: without a question, and without code.
    for trust in (False, True):
        script = (
            "from transformers import AutoTokenizer\n"
            f"tokenizer = AutoTokenizer.from_pretrained({str(checkpoint)!r}, trust_remote_code={trust})\n"
            "assert tokenizer.decode(tokenizer('a baker')['input_ids']) == 'a baker'\n"
        )
        opened = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert opened.returncode == 0, opened.stderr[-3000:]
        assert "custom code" not in opened.stdout
    assert not (tmp_path / "pwned").exists()
