"""The validation split: groups of neighbouring sequences that training leaves out, chosen by the data alone."""

from fractions import Fraction

import numpy as np

from data_prep.shards.mixture import scaled_number
from train.data.sample_order import SampleOrder

# Documents are cut at the borders of groups only, so that few have a part on either side.
GROUP_SEQUENCES = 64


NONE = np.empty(0, dtype=np.int64)


def held_out_groups(num_sequences: int, *, share: float, corpus_digest: str) -> np.ndarray:
    """The groups that are held out of a corpus, ascending; at least one group is left to train on.

    They depend on the corpus and on the length of its sequences: neither on the run's seed nor on what else is in the
    mixture.
    """
    num_groups = -(-num_sequences // GROUP_SEQUENCES)
    count = min(scaled_number(num_groups, Fraction(str(share))), num_groups - 1)
    if count < 1:
        return NONE
    return np.sort(SampleOrder(num_groups, seed=digest_seed(corpus_digest)).samples(0, count))


def digest_seed(digest: str) -> int:
    """A 64-bit seed from "sha256:<hex digits>"."""
    return int(digest[-16:], 16)


class Subset:
    """All sequences of a corpus, or either side of its split, numbered from 0. Memory for the groups held out only."""

    def __init__(self, num_sequences: int, held_out: np.ndarray = NONE, *, is_held_out: bool = False):
        """held_out: groups, ascending. is_held_out: take those; otherwise take the others."""
        ends = np.minimum((held_out + 1) * GROUP_SEQUENCES, num_sequences)  # only the last group may be shorter
        num_held_out = int((ends - held_out * GROUP_SEQUENCES).sum())
        self.num_sequences = num_held_out if is_held_out else num_sequences - num_held_out
        self._held_out, self._is_held_out = held_out, is_held_out
        self._taken_before = held_out - np.arange(len(held_out))  # groups that are trained on, before each

    def sequences(self, indices: np.ndarray) -> np.ndarray:
        """The corpus's sequences that the subset's `indices` stand for."""
        groups, offsets = np.divmod(indices, GROUP_SEQUENCES)
        if self._is_held_out:
            groups = self._held_out[groups]
        else:
            groups = groups + np.searchsorted(self._taken_before, groups, side="right")
        return groups * GROUP_SEQUENCES + offsets
