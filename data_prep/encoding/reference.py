"""Encode with the tokenizers library, whose ids all backends must give: each text, or those that others cannot take."""

from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from data_prep.encoding.plain_bpe import PlainBpe
from data_prep.encoding.tokenizer import without_surrogates
from data_prep.encoding.unicode_17 import ids_of_parts, numbers_of_texts

if TYPE_CHECKING:
    from data_prep.encoding.make_encoder import Encoder


class ReferenceEncoder:
    """Takes every text; its threads are RAYON_NUM_THREADS."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return ids (uint32) of all texts one after the other, and the number of ids of each (int64)."""
        texts = [without_surrogates(text) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return join([np.array(encoding.ids, np.uint32) for encoding in encodings])


class WithReference:
    """Encodes with `fast`; texts on which it fails, and those with characters of Unicode 17, with `reference`."""

    def __init__(self, fast: "Encoder", reference: "Encoder", *, bpe: PlainBpe):
        self._fast, self._reference = fast, reference
        self._is_part = ids_of_parts(bpe.ids_of_bytes())

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return ids (uint32) of all texts one after the other, and the number of ids of each (int64)."""
        ids, lengths = self._encode(texts)
        is_part = self._is_part.take(ids)
        if not is_part.any():
            return ids, lengths
        parts = np.split(ids, np.cumsum(lengths)[:-1])
        for number in numbers_of_texts(texts, lengths, is_part):
            parts[number], _ = self._reference.encode([texts[number]])
        return join(parts)

    def _encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        try:
            return self._fast.encode(texts)
        except BaseException as error:
            if not is_failure(error):
                raise
        if len(texts) == 1:
            return self._reference.encode(texts)
        return join([self._encode([text])[0] for text in texts])


def is_failure(error: BaseException) -> bool:
    """Tell what a backend makes of a text from what ends a program; a panic of Rust is no Exception."""
    is_panic = type(error).__name__ == "PanicException"
    return is_panic or (isinstance(error, Exception) and not isinstance(error, MemoryError))


def join(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of all texts one after the other, and the number of ids of each."""
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    return np.concatenate([np.zeros(0, np.uint32), *parts]), lengths
