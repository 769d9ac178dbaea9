"""Each key is what the paper says, and torch's signed integers give the same buckets."""

import numpy as np
import pytest
import torch

from data_prep.counts.hash_keys import (
    COUNTED_AS,
    KEYS,
    bigram_buckets,
    document_positions,
    mix64,
    num_keys,
    positions,
    previous_tokens,
    route_keys,
)

TOKENS = np.array([[3, 1, 4, 1], [2, 0, 2, 4]])
OPTIONS = {"vocab_size": 5, "num_buckets": 7, "context_length": 4}
MASK = 2**64 - 1


def slow_mix64(value):
    value ^= value >> 30
    value = value * 0xBF58476D1CE4E5B9 & MASK
    value ^= value >> 27
    value = value * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def slow_key(key, tokens, index, *, context_length):
    none = OPTIONS["vocab_size"]
    previous = none if index % context_length == 0 else tokens[index - 1]
    pair = previous * (none + 1) + tokens[index]
    return {
        "token": tokens[index],
        "previous": previous,
        "bigram": slow_mix64(pair) % OPTIONS["num_buckets"],
        "position": index % context_length,
    }[key]


@pytest.mark.parametrize("key", ["token", "previous", "bigram", "position"])
@pytest.mark.parametrize("context_length", [0, 2, 3, 4])
def test_keys_follow_their_definition(key, context_length):
    keys = route_keys(TOKENS, hash_key=key, **OPTIONS | {"context_length": context_length})
    expected = [
        [slow_key(key, row, i, context_length=context_length or 4) for i in range(4)] for row in TOKENS.tolist()
    ]
    assert keys.tolist() == expected and keys.dtype == np.int64


def test_without_a_context_length_the_last_axis_is_one_context():
    previous = previous_tokens(TOKENS, vocab_size=5)
    assert previous.tolist() == [[5, 3, 1, 4], [5, 2, 0, 2]]
    assert route_keys(TOKENS, hash_key="previous", vocab_size=5).tolist() == previous.tolist()
    assert positions(4).tolist() == [0, 1, 2, 3]
    assert route_keys(TOKENS, hash_key="position", vocab_size=5).tolist() == [[0, 1, 2, 3]] * 2
    buckets = bigram_buckets(previous, TOKENS, vocab_size=5, num_buckets=7)
    assert route_keys(TOKENS, hash_key="bigram", vocab_size=5, num_buckets=7).tolist() == buckets.tolist()


def test_an_empty_axis_has_no_keys():
    assert positions(0).tolist() == [] and previous_tokens(TOKENS[:, :0], vocab_size=5).tolist() == [[], []]


@pytest.mark.parametrize("key", ["next", "predicted"])
def test_keys_of_the_future_are_handed_in(key):
    assert route_keys(TOKENS, hash_key=key, vocab_size=5, future=TOKENS + 1).tolist() == (TOKENS + 1).tolist()
    with pytest.raises(ValueError, match=rf"key {key} needs the {key} tokens of shape \(2, 4\), got none"):
        route_keys(TOKENS, hash_key=key, vocab_size=5)
    with pytest.raises(ValueError, match=r"got some of shape \(2, 3\)"):
        route_keys(TOKENS, hash_key=key, vocab_size=5, future=TOKENS[:, 1:])


@pytest.mark.parametrize("key", KEYS)
def test_keys_fit_their_number(key):
    keys = route_keys(TOKENS, hash_key=key, **OPTIONS, future=TOKENS)
    assert 0 <= keys.min() and keys.max() < num_keys(key, **OPTIONS)
    assert num_keys(COUNTED_AS[key], **OPTIONS) == num_keys(key, **OPTIONS)


def test_each_key_has_its_number():
    numbers = {"token": 5, "previous": 6, "bigram": 7, "position": 4, "next": 5, "predicted": 5}
    assert {key: num_keys(key, **OPTIONS) for key in KEYS} == numbers


def test_one_bucket_and_one_position_are_enough():
    assert num_keys("bigram", vocab_size=5, num_buckets=1) == num_keys("position", vocab_size=5, context_length=1) == 1


def test_mix64_is_splitmix64s_finaliser():
    values = [0, 1, 2, 50_257 * 50_258 + 11, 2**63, MASK]
    assert mix64(np.array(values, dtype=np.uint64)).tolist() == [slow_mix64(value) for value in values]


def test_golden_buckets():
    previous, tokens = np.array([50_257, 11, 262, 50_256]), np.array([11, 290, 50_256, 0])
    expected = [int(slow_mix64(int(p) * 50_258 + int(t)) % 65_536) for p, t in zip(previous, tokens, strict=True)]
    assert bigram_buckets(previous, tokens, vocab_size=50_257, num_buckets=65_536).tolist() == expected
    assert expected == GOLDEN_BUCKETS


GOLDEN_BUCKETS = [52807, 8178, 22721, 7193]


def torch_shift(values, bits):
    return values >> bits & (1 << 64 - bits) - 1


def torch_buckets(previous, tokens, *, vocab_size, num_buckets):
    signed = [value - 2**64 if value >= 2**63 else value for value in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)]
    values = previous * (vocab_size + 1) + tokens
    values = (values ^ torch_shift(values, 30)) * signed[0]
    values = (values ^ torch_shift(values, 27)) * signed[1]
    values = values ^ torch_shift(values, 31)
    return (torch_shift(values, 1) % num_buckets * 2 + (values & 1)) % num_buckets


@pytest.mark.parametrize("num_buckets", [1, 7, 65_536, 2**31 - 1])
def test_torch_finds_the_same_buckets_in_signed_integers(num_buckets):
    generator = np.random.Generator(np.random.PCG64(0))
    previous, tokens = generator.integers(0, 268_000, (2, 10_000))
    found = torch_buckets(torch.tensor(previous), torch.tensor(tokens), vocab_size=268_000, num_buckets=num_buckets)
    expected = bigram_buckets(previous, tokens, vocab_size=268_000, num_buckets=num_buckets)
    assert np.array_equal(found.numpy(), expected)


def test_buckets_are_used_evenly():
    buckets = bigram_buckets(
        np.repeat(np.arange(100), 640), np.tile(np.arange(640), 100), vocab_size=640, num_buckets=64
    )
    num_bigrams = np.bincount(buckets, minlength=64)
    assert 850 < num_bigrams.min() and num_bigrams.max() < 1150


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("bigram", "key bigram with num_buckets=0: give the number of buckets with --num_buckets"),
        ("position", "key position with context_length=0: give it with --context_length"),
        ("trigram", "key 'trigram' is unknown; choose one of token, previous"),
    ],
)
def test_a_key_without_its_number_is_refused(key, message):
    with pytest.raises(ValueError, match=message):
        num_keys(key, vocab_size=5)


def test_positions_restart_after_each_end_token():
    tokens = np.array([[9, 1, 2, 9, 9, 3], [1, 2, 3, 4, 5, 9]])
    found = document_positions(tokens, end_token_id=9)
    assert found.tolist() == [[0, 0, 1, 2, 0, 0], [0, 1, 2, 3, 4, 5]] and found.dtype == np.int64
