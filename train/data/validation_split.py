"""The validation split: groups of neighbouring sequences that training never reads, chosen by the data alone."""

import numpy as np

from data_prep.shards.held_out_size import GROUP_SEQUENCES, num_held_out_groups
from train.data.sample_order import SampleOrder

NO_GROUPS = np.empty(0, dtype=np.int64)


def held_out_groups(num_sequences: int, *, fraction: float, corpus_digest: str) -> np.ndarray:
    """Return the groups to hold out of a corpus, ascending; at least one group is left to train on.

    They depend on the corpus and the length of its sequences, but neither on the run's seed nor on the other parts of
    the mixture.
    """
    num_groups = -(-num_sequences // GROUP_SEQUENCES)
    count = num_held_out_groups(num_sequences, fraction=fraction)
    if count == 0:
        return NO_GROUPS
    return np.sort(SampleOrder(num_groups, seed=digest_seed(corpus_digest)).samples(0, count))


def digest_seed(digest: str) -> int:
    """Return a 64-bit seed from "sha256:<hex digits>"."""
    return int(digest[-16:], 16)


class Subset:
    """All sequences of a corpus, or one side of its split, in ascending order; it stores only the held-out groups."""

    def __init__(self, num_sequences: int, held_out: np.ndarray = NO_GROUPS, *, is_held_out: bool = False):
        """held_out: groups, ascending. is_held_out: whether this is their side of the split."""
        ends = np.minimum((held_out + 1) * GROUP_SEQUENCES, num_sequences)  # only the last group may be shorter
        num_held_out = int((ends - held_out * GROUP_SEQUENCES).sum())
        self.num_sequences = num_held_out if is_held_out else num_sequences - num_held_out
        self._held_out, self._is_held_out = held_out, is_held_out
        self._trained_before = held_out - np.arange(len(held_out))  # groups to train on before each held-out group

    def sequences(self, numbers: np.ndarray) -> np.ndarray:
        """Return sequences of the corpus, int64 of the same shape, by their numbers in the subset."""
        groups, offsets = np.divmod(numbers, GROUP_SEQUENCES)
        if self._is_held_out:
            groups = self._held_out[groups]
        else:
            groups = groups + np.searchsorted(self._trained_before, groups, side="right")
        return groups * GROUP_SEQUENCES + offsets
