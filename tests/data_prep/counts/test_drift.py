"""Drift compares how often two corpora use each key."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep.counts.counts_file import Counts
from data_prep.counts.drift import measure_drift


def test_drift_compares_shares():
    counts = [Counts(np.array(values), "sha256:t", "sha256:c") for values in ([5, 3, 2], [8, 2, 0])]
    drift = measure_drift(*counts)
    assert drift.distance == pytest.approx(0.3) and drift.unseen == pytest.approx(0.2)
    assert drift.top[0] == (0, 0.5, 0.8)
    with pytest.raises(ValueError, match="one corpus has tokenizer sha256:t, the other sha256:o"):
        measure_drift(counts[0], replace(counts[1], tokenizer_digest="sha256:o"))
