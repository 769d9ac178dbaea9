"""The command builds a table from a counts file, and reports its balance."""

import numpy as np

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
    assert "holds no manifest.json; give the counted folder of tokens with --tokens" in capsys.readouterr().err


def test_without_frequent_tokens_nothing_is_split(tmp_path):
    main_count([str(write_folder(tmp_path))])
    arguments = ["--counts", tmp_path / "counts.safetensors", "--num_experts", 2, "--split_frequent_tokens"]
    assert run(*arguments, "--output", tmp_path / "table") == 0
    assert read_route_table(tmp_path / "table").split is None


def test_the_tokens_of_a_mixture_are_not_split(tmp_path, capsys):
    write_folder(tmp_path / "one")
    write_mixture(tmp_path / "mixture.yaml", {"one": 2})
    assert main_count([str(tmp_path)]) == 0
    arguments = ["--counts", tmp_path / "counts.safetensors", "--num_experts", "2", "--output", tmp_path / "table"]
    assert run(*arguments) == 0
    assert run(*arguments, "--split_frequent_tokens") == 2
    message = f"--split_frequent_tokens reads one folder of token shards, but {tmp_path} is a mixture"
    assert message in capsys.readouterr().err
