"""The command builds a table from a counts file, and reports its balance."""

import numpy as np
import pytest

from data_prep.build_table import main
from data_prep.count_tokens import main as main_count
from data_prep.counts.counts_file import Counts, write_counts
from data_prep.encoding.tokenizer import load_tokenizer, tokenizer_digest
from data_prep.shards.mixture import write_mixture
from data_prep.tables.route_table_file import read_route_table
from tests.data_prep.shards.test_token_stream import write_folder
from tests.data_prep.tables.test_make_route_table import COUNTS


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_the_command_reports_balance_and_the_most_frequent_token(tmp_path, tokenizer_folder, capsys):
    tokenizer = load_tokenizer(tokenizer_folder)
    counts = np.ones(260, dtype=np.int64)
    counts[tokenizer.token_to_id("e")] = 741  # 741 + 259 = 1000 tokens
    write_counts(tmp_path / "counts.safetensors", Counts(counts, tokenizer_digest(tokenizer), "sha256:c"))
    arguments = ["--counts", tmp_path / "counts.safetensors", "--num_experts", 4, "--ep_size", 2]
    assert run(*arguments, "--tokenizer", tokenizer_folder, "--output", tmp_path / "table.safetensors") == 0
    report = capsys.readouterr().out
    assert "predicted imbalance of experts, max/mean: 2.9640 (lower bound 2.9640)" in report
    assert "over ep_size=2: 1.4820" in report
    assert "'e', 74.10% of 1,000 tokens" in report
    assert read_route_table(tmp_path / "table.safetensors").digest in report


def test_another_tokenizer_than_the_counted_one_is_refused(tmp_path, tokenizer_folder, capsys):
    write_counts(tmp_path / "counts.safetensors", COUNTS)
    arguments = ["--counts", tmp_path / "counts.safetensors", "--num_experts", 4, "--tokenizer", tokenizer_folder]
    assert run(*arguments, "--output", tmp_path / "table") == 2
    assert "the counts are of tokenizer sha256:t but" in capsys.readouterr().err
    assert not (tmp_path / "table").exists()


def test_counts_of_another_corpus_than_the_tokens_beside_them_are_refused(tmp_path, capsys):
    write_folder(tmp_path)
    write_counts(tmp_path / "counts", Counts(np.ones(10, dtype=np.int64), "sha256:t", "sha256:c"))
    arguments = ["--counts", tmp_path / "counts", "--num_experts", 2, "--output", tmp_path / "table"]
    assert run(*arguments) == 2
    assert "or pass --allow_mismatch corpus_digest" in capsys.readouterr().err
    assert run(*arguments, "--allow_mismatch", "corpus_digest") == 0


def test_the_command_splits_frequent_tokens(tmp_path, capsys):
    main_count([str(write_folder(tmp_path))])
    arguments = ["--counts", tmp_path / "counts.safetensors", "--num_experts", 4, "--split_frequent_tokens"]
    assert run(*arguments, "--output", tmp_path / "table") == 0
    assert "frequent tokens split by the token before them: 1" in capsys.readouterr().out  # 9 is 5 of 12 tokens
    table = read_route_table(tmp_path / "table")
    assert table.split.split_index.tolist() == [-1] * 9 + [0]
    assert table.load.sum() == 12 and table.lower_bound == 1.0


def test_a_plain_table_reads_no_tokens_but_their_manifest(tmp_path):
    main_count([str(write_folder(tmp_path))])
    (tmp_path / "shard0.bin").unlink()
    assert run("--counts", tmp_path / "counts.safetensors", "--num_experts", 2, "--output", tmp_path / "table") == 0


def test_splitting_needs_the_counted_tokens(tmp_path, capsys):
    write_counts(tmp_path / "counts", COUNTS)
    arguments = ["--counts", tmp_path / "counts", "--num_experts", 4, "--split_frequent_tokens"]
    assert run(*arguments, "--output", tmp_path / "table") == 2
    assert (
        "holds neither manifest.json nor mixture.yaml; give the counted tokens with --tokens" in capsys.readouterr().err
    )


def test_without_frequent_tokens_nothing_is_split(tmp_path):
    main_count([str(write_folder(tmp_path))])
    arguments = ["--counts", tmp_path / "counts.safetensors", "--num_experts", 2, "--split_frequent_tokens"]
    assert run(*arguments, "--output", tmp_path / "table") == 0
    assert read_route_table(tmp_path / "table").split is None


@pytest.mark.usefixtures("workers_for_few_tokens")
@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_frequent_tokens_of_a_mixture_are_split_as_if_its_parts_were_repeated(tmp_path, num_workers):
    """A part of 2 epochs counts twice: in no context but the first of each copy does a token have no previous one."""
    write_folder(tmp_path / "one", shards=[[[1, 2, 9, 3, 9, 4]]])
    write_folder(tmp_path / "mixed")
    write_mixture(tmp_path / "mixed" / "mixture.yaml", {"../one": 2})
    (tmp_path / "mixed" / "manifest.json").unlink()
    write_folder(tmp_path / "twice", shards=[[[1, 2, 9, 3, 9, 4]], [[1, 2, 9, 3, 9, 4]]])
    tables = []
    for folder in ("mixed", "twice"):
        assert main_count([str(tmp_path / folder)]) == 0
        arguments = ["--counts", tmp_path / folder / "counts.safetensors", "--num_experts", 4, "--context_length", 6]
        arguments += ["--split_frequent_tokens", "--workers", num_workers, "--output", tmp_path / f"{folder}.table"]
        assert run(*arguments) == 0
        tables.append(read_route_table(tmp_path / f"{folder}.table"))
    assert tables[0].split.split_index.tolist() == [-1] * 9 + [0]
    assert (tables[0].digest, tables[0].split_digest) == (tables[1].digest, tables[1].split_digest)
    assert tables[0].load.tolist() == tables[1].load.tolist() and tables[0].load.sum() == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_experts", 10**9], "num_experts=1,000,000,000 exceeds 1,048,576"),
        (["--num_experts", 2, "--vocab_size", 10**9], "vocab_size=1,000,000,000 is not in 1..16,777,216"),
        (["--num_experts", 2, "--context_length", -5], "--context_length -5 must be at least 0"),
        (["--num_experts", 2, "--split_frequent_tokens", "--split_threshold", 1e-9], "splits all 8 tokens that occur"),
    ],
)
def test_numbers_that_mean_nothing_are_refused_in_one_line(tmp_path, capsys, options, message):
    main_count([str(write_folder(tmp_path))])
    assert run("--counts", tmp_path / "counts.safetensors", *options, "--output", tmp_path / "table") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "table").exists()
