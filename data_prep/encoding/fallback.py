"""Encode with a fast backend, and fall back to the reference for the texts that the backend cannot encode."""

import numpy as np

from data_prep.encoding.encoder import Encoder, join
from data_prep.encoding.plain_bpe import PlainBpe
from data_prep.encoding.unicode_17 import ids_of_parts, indices_of_texts


class FallbackEncoder:
    """Encodes with `fast`, except texts on which it fails and texts with characters of Unicode 17."""

    def __init__(self, fast: Encoder, reference: Encoder, *, bpe: PlainBpe):
        self._fast, self._reference = fast, reference
        self._is_part = ids_of_parts(bpe.ids_of_bytes())

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """See Encoder.encode."""
        ids, lengths = self._encode(texts)
        is_part = self._is_part.take(ids)
        if not is_part.any():
            return ids, lengths
        parts = np.split(ids, np.cumsum(lengths)[:-1])
        for number in indices_of_texts(texts, lengths, is_part):
            parts[number], _ = self._reference.encode([texts[number]])
        return join(parts)

    def _encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        try:
            return self._fast.encode(texts)
        except BaseException as error:
            if not _is_failure(error):
                raise
        if len(texts) == 1:
            return self._reference.encode(texts)
        return join([self._encode([text])[0] for text in texts])


def _is_failure(error: BaseException) -> bool:
    """Tell a backend's failure on a text from an error that ends the program. A Rust panic is not an Exception."""
    is_panic = type(error).__name__ == "PanicException"
    return is_panic or (isinstance(error, Exception) and not isinstance(error, MemoryError))
