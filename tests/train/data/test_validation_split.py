"""The validation split is disjoint from training, complete, and depends on the data alone."""

import numpy as np
import pytest

from data_prep.shards.held_out_size import GROUP_SEQUENCES
from train.data.validation_split import Subset, held_out_groups

DIGEST, OTHER = "sha256:" + "1f" * 32, "sha256:" + "2e" * 32


def split(num_sequences: int, fraction: float, digest: str = DIGEST) -> tuple[list[int], list[int]]:
    """Return the sequences to train on, and those held out."""
    groups = held_out_groups(num_sequences, fraction=fraction, corpus_digest=digest)
    sides = [Subset(num_sequences, groups, is_held_out=is_held_out) for is_held_out in (False, True)]
    return tuple(side.sequences(np.arange(side.num_sequences)).tolist() for side in sides)


@pytest.mark.parametrize("num_sequences", [0, 1, 63, 64, 65, 128, 1000, 5000])
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.99])
def test_every_sequence_is_on_exactly_one_side(num_sequences, fraction):
    train, held_out = split(num_sequences, fraction)
    assert sorted(train + held_out) == list(range(num_sequences))
    assert train == sorted(train) and held_out == sorted(held_out)
    assert train or not num_sequences


@pytest.mark.parametrize("fraction", [0.1, 0.25])
def test_the_fraction_is_exact_to_a_group(fraction):
    train, held_out = split(100 * GROUP_SEQUENCES, fraction)
    assert len(held_out) == fraction * 100 * GROUP_SEQUENCES


def test_neighbours_stay_together():
    groups = held_out_groups(100 * GROUP_SEQUENCES, fraction=0.1, corpus_digest=DIGEST)
    _, held_out = split(100 * GROUP_SEQUENCES, 0.1)
    assert sorted({sequence // GROUP_SEQUENCES for sequence in held_out}) == groups.tolist()
    assert len(set(groups)) == 10 and max(groups) > 50  # spread over the corpus


def test_corpora_have_splits_of_their_own_that_never_change():
    assert split(1000, 0.2, OTHER) != split(1000, 0.2)
    assert held_out_groups(1000, fraction=0.2, corpus_digest=DIGEST).tolist() == [2, 11, 13]


def test_a_subset_without_groups_is_the_whole_corpus():
    assert Subset(70).num_sequences == 70
    assert Subset(70).sequences(np.array([69, 3])).tolist() == [69, 3]
