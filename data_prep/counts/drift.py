"""Drift: how two corpora differ in their hash keys, which unbalances a table that was built from one of them."""

from dataclasses import dataclass

import numpy as np

from data_prep.counts.counts_file import Counts

NUM_TOP = 10


@dataclass(frozen=True)
class Drift:
    """Differences of one corpus from another, as shares of its tokens."""

    distance: float  # total variation: the share of tokens that would need another key for the counts to agree
    unseen: float  # the share of tokens with a key that never occurs in the other corpus
    top: tuple[tuple[int, float, float], ...]  # (key, share, share in the other corpus), the greatest changes first


def measure_drift(counts: Counts, other: Counts) -> Drift:
    """Compare the keys of two corpora; ValueError if their tokenizers differ."""
    if counts.tokenizer_digest != other.tokenizer_digest:
        raise ValueError(
            f"one corpus has tokenizer {counts.tokenizer_digest}, the other {other.tokenizer_digest}; "
            "tokenize both with the same one"
        )
    share, other_share = counts.counts / counts.num_tokens, other.counts / other.num_tokens
    change = np.abs(share - other_share)
    top = np.argsort(-change, kind="stable")[:NUM_TOP].tolist()
    return Drift(
        distance=float(change.sum() / 2),
        unseen=float(share[other.counts == 0].sum()),
        top=tuple((key, float(share[key]), float(other_share[key])) for key in top),
    )
