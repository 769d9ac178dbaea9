"""Choose the fastest backend that gives a tokenizer the ids of the tokenizers library."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.encoding.encoder import Encoder
from data_prep.encoding.make_encoder import BACKENDS, make_encoder
from data_prep.encoding.reference import ReferenceEncoder
from data_prep.encoding.tokenizer import load_tokenizer

AUTO = "auto"
CHOICES = (AUTO, *BACKENDS)
TOKENS_PER_TEXT = 256


@dataclass(frozen=True)
class Choice:
    """A backend, and why."""

    backend: str
    reason: str

    def __str__(self) -> str:
        return f"backend: {self.backend} ({self.reason})"


def choose_backend(folder: str | Path, wanted: str = AUTO) -> Choice:
    """Return the choice for the tokenizer in `folder`; ValueError if `wanted`, a backend, cannot be used.

    "auto" takes gigatoken if it is installed, supports the tokenizer, and passes the cross-check: the text of all
    tokens of the vocabulary, encoded by both. SpotCheckedEncoder goes on comparing while the corpus is encoded.
    """
    if wanted != AUTO:
        make_encoder(folder, wanted)
        return Choice(wanted, "as asked")
    try:
        num_tokens = _cross_check(make_encoder(folder, "gigatoken"), folder)
    except ValueError as error:
        make_encoder(folder, "tokenizers")
        return Choice("tokenizers", f"gigatoken is faster, but: {error}".removesuffix("; use --backend tokenizers"))
    return Choice("gigatoken", f"gives {num_tokens:,} ids like the tokenizers library in a text of the vocabulary")


def _cross_check(encoder: Encoder, folder: str | Path) -> int:
    """Compare the ids of a text of all tokens; return their number, ValueError if they differ."""
    tokenizer = load_tokenizer(folder)
    words = tokenizer.decode_batch([[id_] for id_ in sorted(tokenizer.get_vocab().values())], skip_special_tokens=False)
    texts = ["".join(words[start : start + TOKENS_PER_TEXT]) for start in range(0, len(words), TOKENS_PER_TEXT)]
    found, expected = encoder.encode(texts), ReferenceEncoder(tokenizer).encode(texts)
    if not all(map(np.array_equal, found, expected)):
        raise ValueError("it gives other ids than the tokenizers library in a text of the vocabulary")
    return len(expected[0])
