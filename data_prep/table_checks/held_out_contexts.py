"""The contexts of a data set on which a table is measured: sequences as training reads them, evenly spaced."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_prep.shards.mixture import Mixture, read_mixture, scaled_number
from data_prep.shards.sequences import Sequences, read_sequences

READ_TOKENS = 2**20  # per step: 8 MiB of int64


class NoContext(ValueError):
    """Data shorter than one context."""


class Contexts:
    """The sequences of one epoch of a folder or mixture, or at most `max_tokens` of their tokens, evenly spaced.

    The epochs of a part are how often each of its sequences counts.
    """

    def __init__(self, data: str | Path, *, context_length: int, max_tokens: int, predicted: str | Path | None = None):
        """predicted: a prediction of the next token for each token; of a mixture, a mixture of the same parts."""
        if context_length < 1 or max_tokens < 1:
            raise ValueError(f"--context_length {context_length} and --max_tokens {max_tokens} must be at least 1")
        self.data, self.context_length = str(data), context_length
        self.mixture = read_mixture(data)
        self._parts = _sequences(self.mixture, context_length)
        self._predicted = None
        if predicted is not None:
            predictions = read_mixture(predicted)
            _check_predictions(predictions, self.mixture)
            self._predicted = _sequences(predictions, context_length)
        self._addresses = self._evenly_spaced(max_tokens // context_length)

    @property
    def num_contexts(self) -> int:
        return len(self._addresses)

    @property
    def num_tokens(self) -> int:
        return self.num_contexts * self.context_length

    def read(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield tokens [n, S], and for each the next one [n, S], or the prediction of it, n contexts at a time."""
        for addresses in np.array_split(self._addresses, -(-self.num_tokens // READ_TOKENS)):
            tokens = read_sequences(self._parts, addresses)
            future = tokens[:, 1:]
            if self._predicted is not None:
                future = read_sequences(self._predicted, addresses, num_following=0)
            yield tokens[:, :-1], future

    def _evenly_spaced(self, max_contexts: int) -> np.ndarray:
        """Return the addresses (part, sequence) of at most `max_contexts`, but one, of an epoch's sequences."""
        in_part = np.array([part.num_sequences for part in self._parts])
        in_epoch = np.array([scaled_number(*part) for part in zip(in_part.tolist(), self.mixture.epochs, strict=True)])
        available = int(in_epoch.sum())
        if available == 0:
            num_tokens = sum(stream.num_tokens for stream in self.mixture.streams)
            raise NoContext(
                f"{self.data} holds {num_tokens} tokens, not one context of {self.context_length} and the token "
                "after it; use more data or a smaller --context_length"
            )
        num_contexts = max(1, min(available, max_contexts))
        index = np.arange(num_contexts) * available // num_contexts
        ends = np.cumsum(in_epoch)
        part = np.searchsorted(ends, index, side="right")
        index -= (ends - in_epoch)[part]
        return np.stack([part, index * in_part[part] // in_epoch[part]], axis=-1)


def _sequences(mixture: Mixture, context_length: int) -> list[Sequences]:
    return [Sequences(stream, context_length=context_length) for stream in mixture.streams]


def _check_predictions(predictions: Mixture, mixture: Mixture) -> None:
    if len(predictions.parts) != len(mixture.parts):
        raise ValueError(
            f"--predicted has {len(predictions.parts)} parts but the data has {len(mixture.parts)}; predict every part"
        )
    for predicted, stream in zip(predictions.streams, mixture.streams, strict=True):
        if predicted.num_tokens != stream.num_tokens:
            raise ValueError(
                f"{predicted.folder} predicts {predicted.num_tokens} tokens but {stream.folder} has "
                f"{stream.num_tokens}; predict the same tokens"
            )
