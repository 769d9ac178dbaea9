"""Choose and make an encoder: the tokenizers library, or gigatoken, which gives the same ids faster."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from tokenizers import Tokenizer

from data_prep.encoding.coverage import LossCheckedEncoder, coverage
from data_prep.encoding.encoder import Encoder
from data_prep.encoding.fallback import FallbackEncoder
from data_prep.encoding.gigatoken_backend import GigatokenEncoder
from data_prep.encoding.plain_bpe import PlainBpe, plain_bpe
from data_prep.encoding.reference import ReferenceEncoder
from data_prep.encoding.spot_check import SpotCheckedEncoder
from data_prep.encoding.tokenizer import load_tokenizer

AUTO = "auto"
BACKENDS = ("tokenizers", "gigatoken")
CHOICES = (AUTO, *BACKENDS)
TOKENS_PER_TEXT = 256  # of the cross-check


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


def make_encoder(folder: str | Path, backend: str, *, num_threads: int = 1) -> Encoder:
    """Load the tokenizer in `folder`; ValueError if `backend` is not installed or cannot give the same ids.

    While gigatoken encodes, samples of its ids are compared with those of the tokenizers library. The texts on which
    it fails are encoded by the tokenizers library.
    """
    if backend not in BACKENDS:
        raise ValueError(f"--backend {backend} is unknown; choose one of {', '.join(BACKENDS)}")
    tokenizer = load_tokenizer(folder)
    reference = ReferenceEncoder(tokenizer)
    if backend == "tokenizers":
        return LossCheckedEncoder(reference, tokenizer) if coverage(tokenizer).drops_text else reference
    gigatoken = _import(backend)
    bpe = _plain_bpe(tokenizer, folder, backend)
    fast = FallbackEncoder(GigatokenEncoder(bpe, gigatoken, num_threads=num_threads), reference, bpe=bpe)
    return SpotCheckedEncoder(fast, reference, backend=backend, bpe=bpe)


def _cross_check(encoder: Encoder, folder: str | Path) -> int:
    """Compare the ids of a text of all tokens; return their number, ValueError if they differ."""
    tokenizer = load_tokenizer(folder)
    words = tokenizer.decode_batch([[id_] for id_ in sorted(tokenizer.get_vocab().values())], skip_special_tokens=False)
    texts = ["".join(words[start : start + TOKENS_PER_TEXT]) for start in range(0, len(words), TOKENS_PER_TEXT)]
    found, expected = encoder.encode(texts), ReferenceEncoder(tokenizer).encode(texts)
    if not all(map(np.array_equal, found, expected)):
        raise ValueError("it gives other ids than the tokenizers library in a text of the vocabulary")
    return len(expected[0])


def _import(backend: str) -> ModuleType:
    try:
        return importlib.import_module(backend)
    except ImportError as error:
        raise ValueError(f"--backend {backend} cannot be imported ({error}): pip install {backend}") from error


def _plain_bpe(tokenizer: Tokenizer, folder: str | Path, backend: str) -> PlainBpe:
    try:
        return plain_bpe(tokenizer)
    except ValueError as error:
        raise ValueError(
            f"--backend {backend} supports only tokenizers of GPT-2's kind, and the one in {folder} {error}; "
            "use --backend tokenizers"
        ) from error
