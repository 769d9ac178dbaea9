"""Encoder: the one method that every backend has, from a batch of texts to their token ids."""

from typing import Protocol

import numpy as np


class Encoder(Protocol):
    """Encodes each text as if it stood alone, without special tokens: a literal "<|endoftext|>" is ordinary text."""

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of all texts, concatenated (uint32), and the number of ids per text (int64)."""


def join(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return what `Encoder.encode` returns; `parts` holds the ids of one text each."""
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    return np.concatenate([np.zeros(0, np.uint32), *parts]), lengths
