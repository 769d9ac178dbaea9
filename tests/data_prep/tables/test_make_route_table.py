"""From counts to a route table, by every method, for every key."""

import numpy as np
import pytest

from data_prep.counts.counts_file import Counts, with_vocab_size
from data_prep.counts.frequent_bigrams import FrequentBigrams, count_frequent_bigrams
from data_prep.counts.hash_keys import COUNTED_AS, KEYS, num_keys
from data_prep.shards.mixture import read_mixture
from data_prep.tables.assignments import balanced_table
from data_prep.tables.make_route_table import TableOptions, make_route_table, tokens_to_split
from data_prep.tables.methods import HAVE_TOP_K, METHODS, NEED_EMBEDDINGS
from data_prep.tables.route_table import RouteTable

COUNTS = Counts(1000 // np.arange(1, 261), "sha256:t", "sha256:c")
EMBEDDINGS = np.random.Generator(np.random.PCG64(0)).normal(size=(384, 4)).astype(np.float32)


def make(counts, num_experts, *, embeddings=None, counted_tokens=None, context_length=0, **options) -> RouteTable:
    """A table of the counted key, unless another one is given; `counted_tokens` is a folder or mixture."""
    options, bigrams = TableOptions(num_experts, **{"hash_key": counts.hash_key} | options), None
    if counted_tokens is not None:
        mixture, tokens_F = read_mixture(counted_tokens), tokens_to_split(counts, options)
        sizes = {"vocab_size": counts.vocab_size, "context_length": context_length}
        bigrams = count_frequent_bigrams(mixture, tokens_F, **sizes)
    return make_route_table(counts, options, embeddings=embeddings, bigrams=bigrams, context_length=context_length)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_a_table_per_sparse_layer_with_its_load(method):
    counts = with_vocab_size(COUNTS, 384)
    embeddings = EMBEDDINGS if method in NEED_EMBEDDINGS else None
    table = make(counts, 8, method=method, num_tables=3, seed=5, ep_size=2, embeddings=embeddings)
    assert table.tables.shape == (3, 384, 1) and table.columns == "hashes"
    assert (table.method, table.seed, table.ep_size, table.num_experts) == (method, 5, 2, 8)
    assert (table.tokenizer_digest, table.corpus_digest) == ("sha256:t", "sha256:c")
    for tables_K, load_E in zip(table.tables[:, :260, 0], table.load, strict=True):
        assert load_E.tolist() == [COUNTS.counts[tables_K == expert].sum() for expert in range(8)]
    assert table.max_over_mean >= table.lower_bound == max(1, COUNTS.counts.max() * 8 / COUNTS.num_tokens)


def test_the_first_balanced_table_is_the_papers_and_others_differ():
    tables = make(COUNTS, 8, num_tables=3, seed=5).tables
    assert (tables[0] == balanced_table(COUNTS.counts, 8)).all()
    assert (tables[0] != tables[1]).any() and (tables[1] != tables[2]).any()


def test_fewer_than_one_table_is_refused():
    with pytest.raises(ValueError, match="--num_tables 0 must be at least 1"):
        make(COUNTS, 8, num_tables=0)


@pytest.mark.parametrize("method", HAVE_TOP_K)
def test_every_top_k_method_gives_each_token_different_experts(method):
    table = make(COUNTS, 8, method=method, num_tables=2, top_k=3, ep_size=2)
    assert table.tables.shape == (2, 260, 3) and table.columns == "top_k"
    assert (table.top_k, table.num_hashes, table.rotation_period) == (3, 1, 1)
    assert all(len(set(row)) == 3 for row in table.tables.reshape(-1, 3).tolist())
    assert table.num_tokens == COUNTS.num_tokens and table.load.sum() == 2 * 3 * COUNTS.num_tokens


@pytest.mark.parametrize("method", ["balanced", "random", "round_robin"])
def test_multihash_gives_different_tables_per_layer(method):
    table = make(COUNTS, 8, method=method, num_tables=2, num_hashes=3)
    assert table.tables.shape == (2, 260, 3) and (table.columns, table.num_hashes) == ("hashes", 3)
    for j in range(3):
        for m in range(j):
            assert (table.tables[:, :, j] != table.tables[:, :, m]).mean() > 0.5


def test_every_hash_of_a_balanced_table_is_balanced_and_frequent_keys_do_not_meet():
    table = make(COUNTS, 8, num_hashes=4, ep_size=2)
    assert (table.tables[0, :, :1] == balanced_table(COUNTS.counts, 8, ep_size=2)).all()
    for number in range(4):
        load_E = np.bincount(table.tables[0, :, number], weights=COUNTS.counts, minlength=8)
        assert load_E.max() <= max(COUNTS.num_tokens / 8, 1000) * 1.001
    assert len(set(table.tables[0, 0].tolist())) == 4


@pytest.mark.parametrize("key", KEYS)
def test_every_key_has_its_tables(key):
    options = {"vocab_size": 260, "num_buckets": 100, "context_length": 50}
    counted = COUNTED_AS[key]
    counts = 1000 // np.arange(1, num_keys(counted, **options) + 1)
    counts = Counts(counts, "sha256:t", "sha256:c", hash_key=counted, **options)
    table = make(counts, 4, hash_key=key)
    assert (table.hash_key, table.vocab_size, table.num_buckets, table.context_length) == (key, 260, 100, 50)
    assert table.tables.shape == (1, len(counts.counts), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hash_key": "previous"}, "--hash_key previous needs counts of key previous, but these are of key token"),
        ({"hash_key": "trigram"}, "--hash_key trigram is unknown; choose one of token, previous"),
        (
            {"num_tables": 10**9},
            r"1,000,000,000 tables of 260 keys x 1 columns takes .* GiB of memory, but this machine",
        ),
        ({"num_hashes": 10**9}, "x 1,000,000,000 columns takes .* lower --num_tables, --num_hashes, --top_k"),
        ({"method": "fair"}, "--method fair is unknown; choose one of balanced, random"),
        ({"num_hashes": 2, "top_k": 2}, "--num_hashes 2 and --top_k 2 must be at least 1, and one of them 1"),
        ({"num_hashes": 0}, "--num_hashes 0 and --top_k 1"),
        ({"num_hashes": "two"}, "num_hashes='two' must be of type int"),
        ({"split_frequent_tokens": 1}, "split_frequent_tokens=1 must be of type bool"),
        ({"split_threshold": "half"}, "split_threshold='half' must be of type float"),
        ({"top_k": 9}, "top_k=9 different experts cannot be chosen among 8; lower top_k"),
        ({"ep_size": 3}, "8 experts cannot be split evenly over ep_size=3 ranks"),
        ({"method": "clustered", "top_k": 2, "embeddings": EMBEDDINGS}, "--method clustered has no --top_k 2"),
        ({"method": "dispersed"}, "--method dispersed needs --embeddings MODEL_DIR"),
        ({"method": "random", "embeddings": EMBEDDINGS}, "--method random takes no --embeddings"),
        ({"split_frequent_tokens": True}, "--split_frequent_tokens needs the counted tokens; name their folder"),
        (
            {"method": "random", "split_frequent_tokens": True},
            "--split_frequent_tokens needs --method balanced, .* not random, token",
        ),
    ],
)
def test_conflicting_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(COUNTS, 8, **options)


def test_an_absurd_number_of_experts_is_refused_with_the_limit():
    with pytest.raises(ValueError, match="num_experts=1,000,000,000 exceeds 1,048,576, the most that a layer may have"):
        make(COUNTS, 10**9)


def test_bigrams_of_other_tokens_are_refused():
    options = TableOptions(8, split_frequent_tokens=True)
    others = FrequentBigrams(np.array([9]), np.zeros((1, 261), dtype=np.int64))
    with pytest.raises(ValueError, match="bigrams were counted for 1 frequent tokens, but 1 others are split"):
        make_route_table(COUNTS, options, bigrams=others)
