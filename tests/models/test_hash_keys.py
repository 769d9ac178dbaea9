"""The context of each token and its hash keys, on texts that a person can check."""

import pytest
import torch

from models.hash_keys import TokenContext, bigram_buckets, hash_keys, previous_tokens, token_context

NONE = 23
IDS = torch.tensor([[9, 9, 4, 7], [3, 1, 2, 0]])


def test_the_first_token_has_no_previous_one():
    assert previous_tokens(IDS, none=NONE).tolist() == [[23, 9, 9, 4], [23, 3, 1, 2]]


def test_padding_is_no_previous_token():
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    assert previous_tokens(IDS, mask, none=NONE).tolist() == [[23, 23, 23, 4], [23, 3, 1, 2]]


def test_of_a_mask_that_covers_the_cache_the_end_counts():
    mask = torch.tensor([[0, 0, 1, 0, 1, 1], [0, 0, 0, 1, 1, 1]])
    assert previous_tokens(IDS, mask, none=NONE).tolist() == [[23, 9, 23, 4], [23, 23, 1, 2]]


def test_a_mask_of_attention_between_all_positions_tells_nothing_of_padding():
    assert torch.equal(previous_tokens(IDS, torch.zeros(2, 1, 4, 4), none=NONE), previous_tokens(IDS, none=NONE))


def test_a_document_begins_at_position_0_within_the_sequence():
    positions = torch.tensor([[0, 1, 0, 1], [5, 6, 7, 0]])
    assert previous_tokens(IDS, None, positions, none=NONE).tolist() == [[23, 9, 23, 4], [23, 3, 1, 23]]


def test_tokens_newer_than_the_tables_are_no_previous_tokens():
    assert previous_tokens(torch.tensor([[22, 24, 99, 1]]), none=NONE).tolist() == [[23, 22, 23, 23]]


def test_a_context_is_derived_from_the_ids_alone():
    context = token_context(IDS, none=NONE)
    assert torch.equal(context.current, IDS) and torch.equal(context.previous, previous_tokens(IDS, none=NONE))
    assert context.position.tolist() == [[0, 1, 2, 3]] * 2
    assert context.next is None and context.predicted is None


def test_positions_count_from_the_cached_tokens():
    assert token_context(IDS, none=NONE, num_cached=5).position.tolist() == [[5, 6, 7, 8]] * 2


def test_what_is_given_is_not_derived():
    given = {"previous_ids": IDS + 1, "next_ids": IDS + 2, "predicted_ids": IDS + 3}
    context = token_context(IDS, none=NONE, position_ids=torch.tensor([[0, 0, 1, 2]]), **given)
    assert context.position.tolist() == [[0, 0, 1, 2]] * 2
    for name, ids in given.items():
        assert torch.equal(getattr(context, name.removesuffix("_ids")), ids)


CONTEXT = TokenContext(IDS, IDS + 1, IDS + 2, IDS + 3, IDS + 4)


def test_a_key_is_the_part_of_the_context_after_which_it_is_named():
    for number, key in enumerate(["token", "previous", "position", "next", "predicted"]):
        assert torch.equal(hash_keys(key, CONTEXT, none=NONE, num_buckets=5), IDS + number)


def test_a_bigram_is_the_previous_and_the_current_token():
    expected = bigram_buckets(IDS + 1, IDS, none=NONE, num_buckets=5)
    assert torch.equal(hash_keys("bigram", CONTEXT, none=NONE, num_buckets=5), expected)


def slow_mix64(value: int) -> int:
    """The finaliser of splitmix64, in integers without a limit."""
    mask = 2**64 - 1
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & mask
    value = (value ^ value >> 27) * 0x94D049BB133111EB & mask
    return value ^ value >> 31


@pytest.mark.parametrize("num_buckets", [1, 7, 65_536, 2**31 - 1])
def test_buckets_are_remainders_of_unsigned_integers(num_buckets):
    previous, current = torch.randint(0, 50_257, (2, 100), generator=torch.Generator().manual_seed(0))
    bigrams = zip(previous.tolist(), current.tolist(), strict=True)
    expected = [slow_mix64(p * 50_258 + c) % num_buckets for p, c in bigrams]
    assert bigram_buckets(previous, current, none=50_257, num_buckets=num_buckets).tolist() == expected


@pytest.mark.parametrize("key, message", [("next", "pass next_ids"), ("predicted", "pass predicted_ids")])
def test_a_key_that_the_context_lacks_is_refused(key, message):
    with pytest.raises(ValueError, match=message):
        hash_keys(key, TokenContext(IDS, IDS, IDS), none=NONE, num_buckets=5)
