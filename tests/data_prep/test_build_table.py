"""From counts to a route-table file, by every method."""

import numpy as np
import pytest

from data_prep.build_table import main
from data_prep.count_tokens import main as main_count
from data_prep.counts.counts_file import Counts, write_counts
from data_prep.counts.hash_keys import KEYS, num_keys
from data_prep.encoding.tokenizer import load_tokenizer, tokenizer_digest
from data_prep.shards.manifest import read_manifest
from data_prep.shards.mixture import write_mixture
from data_prep.tables.assignments import balanced_table
from data_prep.tables.make_route_table import build_table, with_vocab_size
from data_prep.tables.methods import METHODS, NEED_EMBEDDINGS, TOP_K_METHODS
from data_prep.tables.route_table import read_route_table
from tests.data_prep.shards.test_token_stream import write_folder

COUNTS = Counts(1000 // np.arange(1, 261), "sha256:t", "sha256:c")
EMBEDDINGS = np.random.Generator(np.random.PCG64(0)).normal(size=(384, 4)).astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_builds_a_table_per_sparse_layer_with_its_load(method):
    counts = with_vocab_size(COUNTS, 384)
    embeddings = EMBEDDINGS if method in NEED_EMBEDDINGS else None
    table = build_table(counts, 8, method=method, num_tables=3, seed=5, ep_size=2, embeddings=embeddings)
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
        with_vocab_size(COUNTS, 259)


def test_no_table_at_all_is_refused():
    with pytest.raises(ValueError, match="--num_tables 0 must be at least 1"):
        build_table(COUNTS, 8, num_tables=0)


@pytest.mark.parametrize("method", TOP_K_METHODS)
def test_every_top_k_method_gives_each_token_different_experts(method):
    table = build_table(COUNTS, 8, method=method, num_tables=2, top_k=3, ep_size=2)
    assert table.tables.shape == (2, 260, 3) and (table.top_k, table.num_hashes) == (3, 1)
    assert all(len(set(row)) == 3 for row in table.tables.reshape(-1, 3).tolist())
    assert table.num_tokens == COUNTS.num_tokens and table.load.sum() == 2 * 3 * COUNTS.num_tokens


@pytest.mark.parametrize("method", ["balanced", "random", "round_robin"])
def test_multihash_gives_different_tables_per_layer(method):
    tables = build_table(COUNTS, 8, method=method, num_tables=2, num_hashes=3).tables
    assert tables.shape == (2, 260, 3)
    for j in range(3):
        for m in range(j):
            assert (tables[:, :, j] != tables[:, :, m]).mean() > 0.5


def test_every_hash_of_a_balanced_table_is_balanced_and_heavy_keys_do_not_meet():
    table = build_table(COUNTS, 8, num_hashes=4, ep_size=2)
    assert (table.tables[0, :, 0] == balanced_table(COUNTS.counts, 8, ep_size=2)).all()
    for number in range(4):
        load_E = np.bincount(table.tables[0, :, number], weights=COUNTS.counts, minlength=8)
        assert load_E.max() <= max(COUNTS.num_tokens / 8, 1000) * 1.001
    assert len(set(table.tables[0, 0].tolist())) == 4


@pytest.mark.parametrize("key", KEYS)
def test_every_key_has_its_tables(key):
    options = {"vocab_size": 260, "num_buckets": 100, "context_length": 50}
    counted = key if key in ("previous", "bigram", "position") else "token"
    counts = 1000 // np.arange(1, num_keys(counted, **options) + 1)
    counts = Counts(counts, "sha256:t", "sha256:c", hash_key=counted, **options)
    table = build_table(counts, 4, hash_key=key)
    assert (table.hash_key, table.vocab_size, table.num_buckets, table.context_length) == (key, 260, 100, 50)
    assert table.tables.shape == (1, len(counts.counts), 1)


def test_padding_keeps_the_key_of_no_previous_token_last():
    counts = Counts(np.array([5, 4, 3, 2]), "sha256:t", "sha256:c", hash_key="previous", vocab_size=3)
    padded = with_vocab_size(counts, 5)
    assert padded.counts.tolist() == [5, 4, 3, 0, 0, 2] and padded.vocab_size == 5


def test_bigrams_counted_for_another_vocabulary_are_refused():
    counts = Counts(np.array([5, 4]), "sha256:t", "sha256:c", hash_key="bigram", vocab_size=3, num_buckets=2)
    with pytest.raises(ValueError, match="counted for vocab_size=3, not 5; count again with --vocab_size 5"):
        with_vocab_size(counts, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hash_key": "previous"}, "--hash_key previous needs counts of key previous, but these are of key token"),
        ({"num_hashes": 2, "top_k": 2}, "--num_hashes 2 and --top_k 2 must be at least 1, and one of them 1"),
        ({"num_hashes": 0}, "--num_hashes 0 and --top_k 1"),
        ({"top_k": 9}, "top_k=9 different experts cannot be chosen among 8; lower top_k"),
        ({"method": "clustered", "top_k": 2, "embeddings": EMBEDDINGS}, "--method clustered has no --top_k 2"),
        ({"method": "dispersed"}, "--method dispersed needs --embeddings MODEL_DIR"),
        ({"method": "random", "embeddings": EMBEDDINGS}, "--method random takes no --embeddings"),
        (
            {"method": "random", "split_stream": object()},
            "--split_frequent_tokens needs --method balanced, .* not random, token",
        ),
    ],
)
def test_options_at_odds_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_table(COUNTS, 8, **options)


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_counts_of_another_corpus_than_the_tokens_beside_them_are_refused(tmp_path, capsys):
    digest = read_manifest(write_folder(tmp_path)).corpus_digest
    write_counts(tmp_path / "counts", Counts(np.ones(10, dtype=np.int64), "sha256:t", "sha256:c"))
    arguments = ["--counts", tmp_path / "counts", "--num_experts", 2, "--output", tmp_path / "table"]
    assert run(*arguments) == 2
    message = capsys.readouterr().err
    assert f"has corpus_digest sha256:c but {tmp_path}/manifest.json says {digest}" in message
    assert "or pass --allow_mismatch corpus_digest" in message
    assert run(*arguments, "--allow_mismatch", "corpus_digest") == 0


def test_the_command_splits_heavy_tokens(tmp_path, capsys):
    main_count([str(write_folder(tmp_path))])
    arguments = ["--counts", tmp_path / "counts.safetensors", "--num_experts", 4, "--split_frequent_tokens"]
    assert run(*arguments, "--output", tmp_path / "table") == 0
    assert "1 heavy tokens are split" in capsys.readouterr().out  # 9 is 5 of 12 tokens
    table = read_route_table(tmp_path / "table")
    assert table.split.split_index.tolist() == [-1] * 9 + [0]
    assert table.load.sum() == 12 and table.lower_bound == 1.0


def test_a_plain_table_needs_no_tokens_but_their_manifest(tmp_path):
    main_count([str(write_folder(tmp_path))])
    (tmp_path / "shard0.bin").unlink()
    assert run("--counts", tmp_path / "counts.safetensors", "--num_experts", 2, "--output", tmp_path / "table") == 0


def test_splitting_needs_the_counted_tokens(tmp_path, capsys):
    write_counts(tmp_path / "counts", COUNTS)
    assert (
        run("--counts", tmp_path / "counts", "--num_experts", 4, "--split_frequent_tokens", "--output", tmp_path / "t")
        == 2
    )
    assert "holds no manifest.json; give the counted folder of tokens with --tokens" in capsys.readouterr().err


def test_without_heavy_tokens_nothing_is_split(tmp_path):
    main_count([str(write_folder(tmp_path))])
    arguments = ["--counts", tmp_path / "counts.safetensors", "--num_experts", 2, "--split_frequent_tokens"]
    assert run(*arguments, "--output", tmp_path / "table") == 0
    assert read_route_table(tmp_path / "table").split is None


def test_counts_of_a_mixture_belong_to_it(tmp_path, capsys):
    write_folder(tmp_path / "one")
    write_mixture(tmp_path / "mixture.yaml", {"one": 2})
    assert main_count([str(tmp_path)]) == 0
    arguments = ["--counts", tmp_path / "counts.safetensors", "--num_experts", "2", "--output", tmp_path / "table"]
    assert run(*arguments) == 0
    assert run(*arguments, "--split_frequent_tokens") == 2
    assert (
        f"--split_frequent_tokens reads one folder of token shards, but {tmp_path} is a mixture"
        in capsys.readouterr().err
    )
    write_mixture(tmp_path / "mixture.yaml", {"one": 3})
    assert run(*arguments) == 2
    assert "counts.safetensors has corpus_digest" in capsys.readouterr().err
