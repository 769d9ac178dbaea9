"""The reference: the tokenizers library, whose ids every other backend must reproduce."""

import numpy as np
from tokenizers import Tokenizer

from data_prep.encoding.encoder import join
from data_prep.encoding.tokenizer import without_surrogates


class ReferenceEncoder:
    """Encodes every text that the tokenizer can spell; RAYON_NUM_THREADS sets its number of threads."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """See Encoder.encode; ValueError for a text that the tokenizer cannot spell."""
        texts = [without_surrogates(text) for text in texts]
        try:
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except Exception as error:  # bare: a word without a token, and no unknown token
            raise ValueError(f"the tokenizer cannot encode a text: {error}; give it an unknown token") from error
        return join([np.array(encoding.ids, np.uint32) for encoding in encodings])
