"""Every command has a --help, reports a user's mistake in one line, and runs on machines without torch."""

import importlib
import subprocess
import sys

import pytest

from data_prep.processes.command_line import user_errors_in_one_line

COMMANDS = [
    "balance_report",
    "benchmark.__main__",
    "build_table",
    "check_table",
    "count_tokens",
    "embedded_corpus",
    "export_table",
    "import_table",
    "prepare",
    "tokenize_shards",
    "train_tokenizer",
    "verify",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_the_usage(command, capsys):
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f"data_prep.{command}").main(["--help"])
    assert stop.value.code == 0
    command = command.removesuffix(".__main__")
    assert f"usage: python -m data_prep.{command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("build_table", ["--counts", "a", "--num_experts", "2", "--output", "b"]),
        ("check_table", ["a", "--data", "b"]),
        ("count_tokens", ["a"]),
        ("prepare", ["a", "--tokenizer", "b", "--output", "c"]),
        ("tokenize_shards", ["--input", "a", "--tokenizer", "b", "--output", "c"]),
        ("verify", ["a"]),
    ],
)
def test_workers_are_auto_unless_a_number_is_given(command, arguments, capsys):
    module = importlib.import_module(f"data_prep.{command}")
    assert module._parser().parse_args(arguments).workers is None
    assert module._parser().parse_args([*arguments, "--workers", "auto"]).workers is None
    assert module._parser().parse_args([*arguments, "--workers", "3"]).workers == 3
    with pytest.raises(SystemExit) as stop:
        module.main([*arguments, "--workers", "0"])
    assert stop.value.code == 2
    assert "--workers: 0 must be at least 1, or auto" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("two values"), FileNotFoundError("a name")])
def test_a_mistake_of_the_user_is_one_line_and_status_2(error, capsys):
    @user_errors_in_one_line
    def main(argv=None):
        raise error

    assert main() == 2
    assert capsys.readouterr().err == f"error: {error}\n"


def test_a_command_may_end_with_a_status_of_its_own():
    assert user_errors_in_one_line(lambda argv=None: 1)() == 1


def test_an_error_of_the_program_keeps_its_traceback():
    @user_errors_in_one_line
    def main(argv=None):
        raise AssertionError("a bug")

    with pytest.raises(AssertionError, match="a bug"):
        main()


def test_no_command_imports_torch():
    imports = "; ".join(f"import data_prep.{command}" for command in COMMANDS)
    check = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_workers_of_prepare_import_no_matplotlib():
    check = "import sys, data_prep.prepare; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
