"""The size of a validation split: groups of neighbouring sequences, as a fraction of a corpus."""

from fractions import Fraction

from data_prep.shards.mixture import scaled_number

# Only the borders of groups cut documents, so few documents have a part on either side of the split.
GROUP_SEQUENCES = 64


def num_held_out_groups(num_sequences: int, *, fraction: float) -> int:
    """Return the number of groups to hold out, halves rounded up; at least one group is left to train on."""
    num_groups = -(-num_sequences // GROUP_SEQUENCES)
    return max(0, min(scaled_number(num_groups, Fraction(str(fraction))), num_groups - 1))
