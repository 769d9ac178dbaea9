"""From counts to a route-table file, by every method."""

import numpy as np
import pytest

from data_prep.assignments import balanced_table
from data_prep.build_table import METHODS, build_table, main
from data_prep.counts import Counts, write_counts
from data_prep.route_table import read_route_table
from data_prep.tokenizer import load_tokenizer, tokenizer_digest

COUNTS = Counts(1000 // np.arange(1, 261), "sha256:t", "sha256:c")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_builds_a_table_per_sparse_layer_with_its_load(method):
    table = build_table(COUNTS, 8, method=method, num_tables=3, seed=5, ep_size=2, vocab_size=384)
    assert table.tables.shape == (3, 384, 1)
    assert (table.method, table.seed, table.ep_size, table.num_experts) == (method, 5, 2, 8)
    assert (table.tokenizer_digest, table.corpus_digest) == ("sha256:t", "sha256:c")
    for tables_K, load_E in zip(table.tables[:, :260, 0], table.load, strict=True):
        assert load_E.tolist() == [COUNTS.counts[tables_K == expert].sum() for expert in range(8)]
    assert table.max_over_mean >= table.lower_bound == max(1, COUNTS.counts.max() * 8 / COUNTS.num_tokens)


def test_the_first_balanced_table_is_the_papers_and_others_differ():
    tables = build_table(COUNTS, 8, num_tables=3, seed=5).tables[:, :, 0]
    assert (tables[0] == balanced_table(COUNTS.counts, 8)).all()
    assert (tables[0] != tables[1]).any() and (tables[1] != tables[2]).any()


def test_the_command_reports_balance_and_the_heaviest_token(tmp_path, tokenizer_folder, capsys):
    tokenizer = load_tokenizer(tokenizer_folder)
    counts = np.ones(260, dtype=np.int64)
    counts[tokenizer.token_to_id("e")] = 741  # 741 + 259 = 1000 tokens
    write_counts(tmp_path / "counts.safetensors", Counts(counts, tokenizer_digest(tokenizer), "sha256:c"))
    arguments = ["--counts", tmp_path / "counts.safetensors", "--num_experts", 4, "--ep_size", 2]
    arguments += ["--tokenizer", tokenizer_folder, "--output", tmp_path / "table.safetensors"]
    assert main([str(argument) for argument in arguments]) == 0
    report = capsys.readouterr().out
    assert "max/mean: 2.9640 (no table can do better than 2.9640)" in report
    assert "over ep_size=2 ranks: 1.4820" in report
    assert "'e', 74.10% of 1,000 tokens" in report
    assert read_route_table(tmp_path / "table.safetensors").digest in report


def test_another_tokenizer_than_the_counted_one_is_refused(tmp_path, tokenizer_folder, capsys):
    write_counts(tmp_path / "counts.safetensors", COUNTS)
    arguments = ["--counts", tmp_path / "counts.safetensors", "--num_experts", 4, "--tokenizer", tokenizer_folder]
    assert main([str(argument) for argument in [*arguments, "--output", tmp_path / "table"]]) == 2
    assert "the counts are of tokenizer sha256:t but" in capsys.readouterr().err
    assert not (tmp_path / "table").exists()


def test_a_vocabulary_smaller_than_the_counts_is_refused():
    with pytest.raises(ValueError, match="--vocab_size 259 is smaller than the 260 token ids that were counted"):
        build_table(COUNTS, 8, vocab_size=259)


def test_no_table_at_all_is_refused():
    with pytest.raises(ValueError, match="--num_tables 0 must be at least 1"):
        build_table(COUNTS, 8, num_tables=0)
