"""The options of the benchmark: its cases and variants, and the combinations that it refuses."""

import pytest

from launch.benchmark.layers.options import ALWAYS, read_options
from launch.benchmark.main import main

TINY = "--device cpu --hidden_size 8 --tokens_per_rank 256 --num_experts 4 --vocab_size 40 --context_length 32".split()


def test_default_cases_are_one_and_sweeps_vary_one_number():
    assert read_options(TINY).cases == [(4, 256)]
    assert read_options([*TINY, "--sweep", "experts"]).cases == [(16, 256), (32, 256), (64, 256), (128, 256)]
    assert read_options([*TINY, "--sweep", "tokens"]).cases == [(4, 1024), (4, 4096), (4, 8192)]


def test_dense_and_hash_are_always_measured():
    assert read_options([*TINY, "--variants"]).variants == [*ALWAYS]
    assert read_options([*TINY, "--variants", "hash", "learned_top1"]).variants == [*ALWAYS, "learned_top1"]


@pytest.mark.parametrize(
    "flags, named",
    [
        (["--num_experts", "5", "--ep_sizes", "2"], ["5 experts", "ep_size=2"]),
        (["--tokens_per_rank", "100"], ["100 tokens", "context_length=32"]),
        (["--table", "x", "--sweep", "experts"], ["--table", "--sweep experts"]),
        (["--repetitions", "0"], ["repetitions=0"]),
    ],
)
def test_contradicting_options_are_refused_with_both_values(flags, named, capsys):
    assert main([*TINY, *flags]) == 2
    message = capsys.readouterr().err
    assert all(value in message for value in named), message


def test_a_missing_folder_of_tokens_is_refused(tmp_path, capsys):
    assert main([*TINY, "--tokens", str(tmp_path / "missing")]) == 2
    assert "missing" in capsys.readouterr().err
