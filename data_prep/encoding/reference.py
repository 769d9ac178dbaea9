"""The reference: the tokenizers library, whose ids every other backend must reproduce."""

import numpy as np
from tokenizers import Tokenizer

from data_prep.encoding.encoder import join
from data_prep.encoding.tokenizer import without_surrogates


class ReferenceEncoder:
    """Encodes any text; RAYON_NUM_THREADS sets its number of threads."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """See Encoder.encode."""
        texts = [without_surrogates(text) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return join([np.array(encoding.ids, np.uint32) for encoding in encodings])
