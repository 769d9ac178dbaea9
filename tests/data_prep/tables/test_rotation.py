"""Rotation gives each part of the vocabulary to other experts by position; every column is balanced."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep.build_table import main
from data_prep.counts.count_folders import count_folders
from data_prep.counts.counts_file import Counts, write_counts
from data_prep.export_table import export_table
from data_prep.shards.token_stream import TokenStream
from data_prep.table_checks.held_out_contexts import Contexts
from data_prep.table_checks.held_out_load import whole_load
from data_prep.tables.apply_table import apply_table
from data_prep.tables.assignments import balanced_table
from data_prep.tables.expert_load import expert_load, max_over_mean, rank_load
from data_prep.tables.frequent_tokens import FrequentTokenSplit
from data_prep.tables.rotation import rotated_split, rotation_experts
from data_prep.tables.route_table_file import read_route_table
from tests.data_prep.shards.test_token_stream import write_folder
from tests.data_prep.tables.test_greedy import zipf
from tests.data_prep.tables.test_make_route_table import make

COUNTS = Counts(np.append(zipf(2000, largest=10_000), 60_000), "sha256:t", "sha256:c")  # one of 141,703 tokens
LENGTH = 24


@pytest.fixture
def skewed(tmp_path):
    """30% of the tokens are 1, 20% are 2, one in a hundred is any other up to 99."""
    draws = np.random.Generator(np.random.PCG64(0)).integers(0, 100, 4000 * LENGTH + 1)
    tokens = np.where(draws < 30, 1, np.where(draws < 50, 2, draws))
    return write_folder(tmp_path / "skewed", shards=[[tokens.tolist()]], vocab_size=100)


def split_table(folder, rotation_period, **options):
    tokens = {"split_frequent_tokens": True, "counted_tokens": folder, "context_length": LENGTH}
    return make(count_folders([folder]), 8, rotation_period=rotation_period, ep_size=2, **tokens | options)


def test_rotations_that_a_person_can_check():
    assert rotation_experts(4, 2).tolist() == [[0, 1, 2, 3], [2, 3, 0, 1]]
    assert rotation_experts(4, 4, ep_size=2).tolist() == [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]]


@pytest.mark.parametrize(
    ("num_experts", "rotation_period", "ep_size"),
    [(16, 16, 1), (16, 5, 1), (64, 16, 8), (64, 64, 8), (8, 8, 8), (12, 7, 4), (24, 24, 3), (6, 4, 2)],
)
def test_no_expert_serves_a_part_twice_and_ranks_stay_together(num_experts, rotation_period, ep_size):
    expert_CE = rotation_experts(num_experts, rotation_period, ep_size=ep_size)
    assert expert_CE[0].tolist() == list(range(num_experts))
    assert (np.sort(expert_CE, axis=1) == np.arange(num_experts)).all()
    assert all(len(set(column)) == rotation_period for column in expert_CE.T.tolist())
    ranks = expert_CE.reshape(rotation_period, ep_size, -1) // (num_experts // ep_size)
    assert (ranks == ranks[:, :, :1]).all()


@pytest.mark.parametrize("rotation_period", [2, 5, 8])
@pytest.mark.parametrize("ep_size", [1, 4])
def test_every_column_is_as_balanced_as_a_plain_table_and_all_of_them_more_so(rotation_period, ep_size):
    table = make(COUNTS, 8, num_tables=2, rotation_period=rotation_period, ep_size=ep_size)
    plain = make(COUNTS, 8, num_tables=2, ep_size=ep_size)
    assert table.tables.shape == (2, 2001, rotation_period) and table.columns == "rotation"
    assert (table.rotation_period, table.num_hashes, table.top_k) == (rotation_period, 1, 1)
    assert np.array_equal(table.tables[:, :, :1], plain.tables)
    for layer in range(2):
        for column in range(rotation_period):
            load_E = expert_load(table.tables[layer, :, column], COUNTS.counts, 8)
            assert max_over_mean(load_E) == max_over_mean(plain.load[layer])
            assert max_over_mean(rank_load(load_E, ep_size)) == max_over_mean(rank_load(plain.load[layer], ep_size))
    assert table.load.sum(axis=1).tolist() == [COUNTS.num_tokens] * 2 and table.num_tokens == COUNTS.num_tokens
    assert table.lower_bound <= table.max_over_mean < plain.max_over_mean == plain.lower_bound
    assert table.lower_bound == max(1, plain.lower_bound / rotation_period)
    assert table.rank_max_over_mean <= plain.rank_max_over_mean


def test_every_token_meets_as_many_experts_as_there_are_columns():
    for method in ("balanced", "random"):
        tables = make(COUNTS, 8, method=method, rotation_period=8, ep_size=4).tables
        assert (np.sort(tables[0], axis=1) == np.arange(8)).all()


def test_the_predicted_load_is_the_mean_over_columns():
    table = make(Counts(np.array([5, 4, 3, 2]), "sha256:t", "sha256:c"), 2, rotation_period=2)
    assert balanced_table(np.array([5, 4, 3, 2]), 2)[:, 0].tolist() == [0, 1, 1, 0]  # 7 tokens each
    assert table.tables[0].tolist() == [[0, 1], [1, 0], [1, 0], [0, 1]]
    assert table.load.tolist() == [[7, 7]]  # 4 + 3 and 3 + 4


@pytest.mark.parametrize("rotation_period", [2, 3, 8])
def test_the_predicted_load_is_the_real_one_except_that_positions_share_unevenly(skewed, rotation_period):
    table = split_table(skewed, rotation_period)
    assert len(table.split.split_table) == 2 and len(table.split.position_table) > 8  # some bigrams are split too
    found_E = whole_load(table, 0, Contexts(skewed, context_length=LENGTH, max_tokens=10**9))
    assert abs(found_E - table.load[0]).max() < 0.04 * found_E.mean()
    assert table.load.sum() == 4000 * LENGTH + 1 and table.max_over_mean < 1.03


SPLIT = FrequentTokenSplit(
    split_index=np.array([-1, 0, 1], dtype=np.int32),
    split_table=np.array([[3, -1, 0, 2], [-2, 1, 3, 0]], dtype=np.int32),
    position_table=np.array([[0, 3] * 6, [1, 2, 3] * 4], dtype=np.int32),
)


@pytest.mark.parametrize("rotation_period", [1, 2, 3, 4])
def test_split_tokens_follow_their_rule_and_then_the_rotation(rotation_period):
    expert_CE = rotation_experts(4, rotation_period, ep_size=2)
    rotated = rotated_split(SPLIT, expert_CE)
    assert rotated.position_table.shape == (4 + 2, 6 * rotation_period)
    for entry, new in zip(SPLIT.split_table.ravel().tolist(), rotated.split_table.ravel().tolist(), strict=True):
        for position in range(50):
            expert = entry if entry >= 0 else SPLIT.position_table[-entry - 1, position // rotation_period % 12]
            found = rotated.position_table[-new - 1, position % rotated.position_table.shape[1]]
            assert found == expert_CE[position % rotation_period, expert]


def test_looking_up_equals_one_token_at_a_time(skewed):
    table = split_table(skewed, 3)
    plain = replace(table, split=None)
    tokens = TokenStream(skewed).read(0, 3 * LENGTH).reshape(3, LENGTH)
    expected = [[[int(plain.tables[0, token, i % 3])] for i, token in enumerate(row)] for row in tokens.tolist()]
    assert apply_table(plain, 0, tokens).tolist() == expected
    flat = apply_table(table, 0, tokens.reshape(-1), context_length=LENGTH)
    assert flat.tolist() == apply_table(table, 0, tokens).reshape(-1, 1).tolist()
    is_split = table.split.split_index[tokens] >= 0
    assert is_split.any() and (apply_table(table, 0, tokens)[~is_split] == np.array(expected)[~is_split]).all()


def test_same_counts_give_the_same_bytes_everywhere(skewed):
    assert make(COUNTS, 16, num_tables=2, rotation_period=6, ep_size=4, seed=3).digest == GOLDEN[0]
    assert split_table(skewed, 4).split_digest == GOLDEN[1]


GOLDEN = [
    "sha256:8d02ccc1d50c8d13b52ecfbe4c247f4ba0409f074782805cdf8bbab7fb548f39",
    "sha256:d0acb52b7ade31bf49ceb24a33ff0176a4dd74d441be2278186c69a0bdfca70b",
]


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_the_command_builds_a_rotation_that_survives_the_file(tmp_path, skewed, capsys):
    count_file = tmp_path / "counts.safetensors"
    write_counts(count_file, count_folders([skewed]))
    options = ["--num_experts", 8, "--ep_size", 2, "--rotation_period", 4]
    options += ["--split_frequent_tokens", "--context_length", LENGTH]
    assert run("--counts", count_file, "--tokens", skewed, *options, "--output", tmp_path / "table") == 0
    assert "8 experts, rotation period 4" in capsys.readouterr().out
    read, built = read_route_table(tmp_path / "table"), split_table(skewed, 4)
    assert (read.rotation_period, read.num_hashes, read.num_choices, read.num_tokens) == (4, 1, 1, built.num_tokens)
    assert (read.digest, read.split_digest) == (built.digest, built.split_digest)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotation_period": 0}, "--rotation_period 0 must be at least 1"),
        ({"rotation_period": 9}, "--rotation_period 9 exceeds the 8 experts that rotate"),
        ({"rotation_period": 2, "hash_key": "next"}, "--rotation_period 2 needs .* not balanced, next, 1 and 1"),
        (
            {"rotation_period": 2, "method": "round_robin"},
            "--rotation_period 2 needs --method balanced or random, .* not round_robin",
        ),
        ({"rotation_period": 2, "num_hashes": 2}, "--rotation_period 2 needs .* not balanced, token, 2 and 1"),
        ({"rotation_period": 2, "top_k": 3}, "--rotation_period 2 needs .* not balanced, token, 1 and 3"),
    ],
)
def test_conflicting_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(COUNTS, 8, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hash_key": "next"}, "columns=rotation needs key token, not next"),
        ({"columns": "layers"}, "columns='layers' is unknown; it must be hashes, top_k or rotation"),
    ],
)
def test_a_table_that_contradicts_itself_cannot_be_made(change, message):
    with pytest.raises(ValueError, match=message):
        replace(make(COUNTS, 8, rotation_period=2), **change)


def test_other_programs_have_no_rotation():
    with pytest.raises(ValueError, match="no rotation, but this one has key token, 1 hashes, rotation period 2"):
        export_table(make(COUNTS, 8, rotation_period=2), "deepseek")
